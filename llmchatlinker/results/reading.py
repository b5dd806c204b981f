"""Reading results: one query for however many ids."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from celery import states
from sqlalchemy import Uuid, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction, TaskResult, Waiter
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import restored
from llmchatlinker.errors import DeadlineExceeded, LLMChatLinkerError
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.outcomes import finalise
from llmchatlinker.settings import get_settings

#: What Celery calls "meta": status, result, … and, of ours, ``known`` (the id was submitted) and
#: ``ended`` (waiting for it makes no sense any longer).
Meta = dict[str, Any]

_INSTRUCTIONS = select(
    Instruction.id,
    Instruction.state,
    Instruction.outcome,
    Instruction.final_at,
    (Instruction.final_at.is_(None) & (Instruction.deadline_at < func.clock_timestamp())).label(
        "late"
    ),
).where(
    Instruction.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
    Instruction.state != "withdrawn",  # withdrawn is as good as never submitted
)


def read(task_ids: Sequence[str]) -> dict[str, Meta]:
    """The meta of each id. Closes what is past its deadline: perhaps no worker runs that would.

    Raises Unavailable when PostgreSQL does not answer within the client's patience.
    """
    found: dict[str, Meta] = {}
    instructions: dict[uuid.UUID, str] = {}
    others: list[str] = []
    for task_id in task_ids:
        instruction_id = as_instruction_id(task_id)
        found[task_id] = _not_there(never_submitted=instruction_id is not None)
        if instruction_id is None:
            others.append(task_id)
        else:
            instructions[instruction_id] = task_id
    late: list[uuid.UUID] = []

    def work(session: Session) -> None:
        late.clear()
        if instructions:
            for row in session.execute(_INSTRUCTIONS, {"ids": list(instructions)}):
                found[instructions[row.id]] = _instruction_meta(row)
                if row.late:
                    late.append(row.id)
        if others:
            for result in session.scalars(select(TaskResult).where(TaskResult.task_id.in_(others))):
                found[result.task_id] = _task_meta(result)

    database().run(work, patience=get_settings().client_patience)
    if late:
        for instruction_id in late:
            end(instruction_id, DeadlineExceeded(), patience=get_settings().client_patience)
        return found | read([instructions[instruction_id] for instruction_id in late])
    return found


def end(
    instruction_id: uuid.UUID, otherwise: LLMChatLinkerError | None, patience: float | None = None
) -> None:
    """Make the id final, and do what follows from that. ``patience``: as of ``Database.run``."""
    from llmchatlinker.orchestrator import announce  # which submits, and so needs this package

    ending = database().run(
        lambda session: finalise(session, instruction_id, otherwise), patience=patience
    )
    if ending is not None:
        announce(ending)


def register_waiters(task_ids: Sequence[str], queue: str) -> None:
    """Have these instructions' ends hinted to this queue as well."""
    rows = [
        {"instruction_id": instruction_id, "queue": queue}
        for task_id in task_ids
        if (instruction_id := as_instruction_id(task_id)) is not None
    ]
    if rows:
        statement = insert(Waiter).on_conflict_do_nothing()
        database().run(
            lambda session: session.execute(statement, rows),
            patience=get_settings().client_patience,
        )


def _not_there(*, never_submitted: bool) -> Meta:
    return {
        "status": states.PENDING,
        "result": None,
        "traceback": None,
        "known": False,
        "ended": never_submitted,  # another task's result may still come, as Celery knows it
    }


def _instruction_meta(row: Any) -> Meta:
    """An instruction as Celery sees a task: SUCCESS means that an envelope is there."""
    final = row.state == "final"
    status = states.PENDING if row.state == "submitted" else states.STARTED
    return {
        "status": states.SUCCESS if final else status,
        "result": restored(row.outcome) if final else None,
        "traceback": None,
        "children": [],
        "date_done": row.final_at.isoformat() if final else None,
        "task_id": str(row.id),
        "known": True,
        "ended": final,
    }


def _task_meta(row: TaskResult) -> Meta:
    return {
        "status": row.status,
        "result": row.result,
        "traceback": row.traceback,
        "date_done": row.date_done.isoformat(),
        "task_id": row.task_id,
        "known": True,
        "ended": row.status in states.READY_STATES,
    } | (row.meta or {})
