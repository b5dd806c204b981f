"""Reading results: one query for however many ids."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from celery import states
from sqlalchemy.dialects.postgresql import insert

from llmchatlinker.db.models import Waiter
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import restored
from llmchatlinker.errors import DeadlineExceeded, LLMChatLinkerError
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.outcomes import finalise
from llmchatlinker.results import tasks
from llmchatlinker.settings import get_settings

#: What Celery calls "meta": status, result, … and, of ours, ``known`` (the id was submitted) and
#: ``ended`` (waiting for it makes no sense any longer).
Meta = dict[str, Any]

#: Withdrawn is as good as never submitted.
_INSTRUCTIONS = """
    SELECT CAST(id AS text), state, outcome, final_at,
           final_at IS NULL AND deadline_at < clock_timestamp()
      FROM instructions
     WHERE id = ANY (CAST(CAST(%(ids)s AS text[]) AS uuid[])) AND state <> 'withdrawn'
"""


def read(task_ids: Sequence[str]) -> dict[str, Meta]:
    """The meta of each id. Closes what is past its deadline: perhaps no worker runs that would.

    Raises Unavailable when PostgreSQL does not answer within the client's patience.
    """
    found: dict[str, Meta] = {}
    instructions: dict[str, list[str]] = {}  # one id may be waited for in several spellings
    others: dict[str, str] = {}
    for task_id in task_ids:
        instruction_id = as_instruction_id(task_id)
        text = str(task_id)
        if instruction_id is not None:
            instructions.setdefault(str(instruction_id), []).append(task_id)
        elif tasks.is_storable(text):
            others[text] = task_id
        found[task_id] = _not_there(never_submitted=text not in others)
    patience = get_settings().client_patience
    if others:
        there = tasks.read_tasks(list(others), patience)
        found |= {others[text]: meta for text, meta in there.items()}
    if not instructions:
        return found
    late: list[str] = []
    values = {"ids": list(instructions)}
    for row in database().statement(
        _INSTRUCTIONS, values, patience=patience, prepare=True, bounded=True
    ):
        found |= {task_id: _instruction_meta(*row[:4]) for task_id in instructions[row[0]]}
        if row[4]:
            late.append(row[0])
    if late:
        for text in late:
            end(uuid.UUID(text), DeadlineExceeded(), patience=patience)
        return found | read([task_id for text in late for task_id in instructions[text]])
    return found


def hinted(instruction_id: str, hint: dict[str, Any]) -> Meta | None:
    """The meta that a hint brings along; None where it brings none."""
    outcome, date = hint.get("result"), hint.get("date_done")
    if not isinstance(outcome, dict) or not isinstance(date, str) or "status" not in outcome:
        return None
    return _final_meta(instruction_id, outcome, date)


def end(
    instruction_id: uuid.UUID, otherwise: LLMChatLinkerError | None, patience: float | None = None
) -> None:
    """Make the id final, and do what follows from that. ``patience``: as of ``Database.run``."""
    from llmchatlinker.orchestrator import announce  # which submits, and so needs this package

    ending = finalise(instruction_id, otherwise, patience=patience)
    if ending is not None:
        announce(ending, patiently=patience is not None)


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


def _instruction_meta(
    instruction_id: str, state: str, outcome: dict[str, Any] | None, final_at: datetime | None
) -> Meta:
    """An instruction as Celery sees a task: SUCCESS means that an envelope is there."""
    if state == "final" and outcome is not None and final_at is not None:
        return _final_meta(instruction_id, outcome, final_at.isoformat())
    status = states.PENDING if state == "submitted" else states.STARTED
    return _meta(instruction_id, status, None, None, ended=False)


def _final_meta(instruction_id: str, outcome: dict[str, Any], date_done: str) -> Meta:
    return _meta(instruction_id, states.SUCCESS, restored(outcome), date_done, ended=True)


def _meta(instruction_id: str, status: str, result: Any, date: str | None, *, ended: bool) -> Meta:
    return {
        "status": status,
        "result": result,
        "traceback": None,
        "children": [],
        "date_done": date,
        "task_id": instruction_id,
        "known": True,
        "ended": ended,
    }
