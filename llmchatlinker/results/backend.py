"""Celery's result backend on PostgreSQL: the outcome in an instruction's row *is* its result.

Why not Celery's own database backend: outside a prefork child it makes a new engine, and so a new
connection, for every call (``celery/backends/database/session.py``). What is overridden of
``celery/backends/base.py``, and why:

* ``store_result``, ``mark_as_failure``, ``mark_as_revoked`` end an instruction by ``finalise`` only:
  Celery would write FAILURE over work that is committed when a hand-off fails (``_fail_chain``);
* ``wait_for``, ``get_many``: one query per look for all ids, at growing intervals, never the parents;
* the storage itself: JSONB, no pickle, one statement per write, one bounded pool.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from celery import states
from celery.backends.base import BaseBackend
from celery.result import result_from_tuple
from kombu.exceptions import KombuError
from sqlalchemy import Uuid, any_, bindparam, delete, func, select
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction, TaskResult
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import restored
from llmchatlinker.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    LLMChatLinkerError,
    NotFound,
    ResultTimeout,
    Unavailable,
)
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.outcomes import finalise
from llmchatlinker.results.waiting import looks
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

Meta = dict[str, Any]
GROUP = "group:"
NOT_THERE: Meta = {"status": states.PENDING, "result": None, "traceback": None, "known": False}


class PostgresBackend(BaseBackend):
    """Results of instructions, and of other tasks on the same app."""

    supports_native_join = True
    persistent = True

    def as_uri(self, include_password: bool = False) -> str:
        """The database's address."""
        return get_settings().database_url if include_password else database().address

    # --- writing --------------------------------------------------------------------------------

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Make an instruction final from its outcome; keep another task's result as it is."""
        instruction_id = _instruction_of(task_id, request)
        if instruction_id is None:
            return super().store_result(task_id, result, state, traceback, request, **kwargs)
        if state in states.READY_STATES:
            self._end(instruction_id, None)
        return result

    def mark_as_failure(
        self,
        task_id: str,
        exc: Exception,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """A failure of Celery's own. A failed hand-off leaves the row open, for the sweeper."""
        instruction_id = _instruction_of(task_id, request)
        if instruction_id is None:
            super().mark_as_failure(
                task_id, exc, traceback, request, store_result, call_errbacks, state
            )
        elif isinstance(exc, KombuError | ConnectionError):
            logger.warning("Instruction %s: hand-off failed, left to the sweeper", instruction_id)
        else:
            self._end(instruction_id, InternalError(details={"exception": type(exc).__name__}))

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """A revoked or expired stage: the outcome if there is one, ``cancelled`` if not."""
        instruction_id = _instruction_of(task_id, request)
        if instruction_id is None:
            super().mark_as_revoked(task_id, reason, request, store_result, state)
        else:
            self._end(instruction_id, Cancelled())

    def _end(self, instruction_id: uuid.UUID, otherwise: LLMChatLinkerError | None) -> None:
        from llmchatlinker.orchestrator import announce

        # Waits out an outage: in a thread pool a store that raises leaks the worker's slot
        # (celery/concurrency/base.py, apply_target).
        ending = database().run(lambda session: finalise(session, instruction_id, otherwise))
        if ending is not None:
            announce(ending)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> None:
        meta = self._get_result_meta(result=None, state=state, traceback=None, request=request)
        _upsert(task_id, state, result, traceback, {"children": meta.get("children") or []})

    def _save_group(self, group_id: str, result: Any) -> Any:
        _upsert(GROUP + group_id, states.SUCCESS, result.as_tuple(), None, {})
        return result

    def _delete_group(self, group_id: str) -> None:
        self._forget(GROUP + group_id)

    def _forget(self, task_id: str) -> None:
        """Remove the result. An instruction that is not final is still work, and stays."""
        instruction_id = as_instruction_id(task_id)

        def work(session: Session) -> None:
            if instruction_id is None:
                session.execute(delete(TaskResult).where(TaskResult.task_id == task_id))
            else:
                session.execute(
                    delete(Instruction).where(
                        Instruction.id == instruction_id, Instruction.final_at.is_not(None)
                    )
                )

        database().run(work, patience=get_settings().client_patience)

    # --- reading --------------------------------------------------------------------------------

    def _get_task_meta_for(self, task_id: str) -> Meta:
        return self._read([task_id])[task_id]

    def _restore_group(self, group_id: str) -> Meta | None:
        meta = self._read([GROUP + group_id])[GROUP + group_id]
        if not meta["known"]:
            return None
        return meta | {"result": result_from_tuple(meta["result"], self.app)}

    def task_result_exists(self, task_id: str) -> bool:
        """Whether the id was submitted, whatever has become of it."""
        return bool(self._get_task_meta_for(task_id)["known"])

    def _read(self, task_ids: Sequence[str]) -> dict[str, Meta]:
        """The meta of each id: one query for the instructions, one for what is none."""
        found = dict.fromkeys(task_ids, NOT_THERE)
        instructions = {task_id: as_instruction_id(task_id) for task_id in task_ids}
        wanted = {value: key for key, value in instructions.items() if value is not None}
        others = [key for key, value in instructions.items() if value is None]
        late: list[uuid.UUID] = []

        def work(session: Session) -> None:
            late.clear()
            if wanted:
                for row in session.execute(_INSTRUCTIONS, {"ids": list(wanted)}):
                    found[wanted[row.id]] = _instruction_meta(row)
                    if row.late:
                        late.append(row.id)
            if others:
                rows = session.scalars(select(TaskResult).where(TaskResult.task_id.in_(others)))
                for result in rows:
                    found[result.task_id] = self.meta_from_decoded(_task_meta(result))

        database().run(work, patience=get_settings().client_patience)
        if late:
            # No worker has closed it: the waiting client keeps the deadline itself.
            for instruction_id in late:
                self._end(instruction_id, DeadlineExceeded())
            return self._read(task_ids)
        return found

    # --- waiting --------------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = None,
        no_ack: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> Meta:
        """Wait for one result. ResultTimeout when it takes longer, NotFound for an id of nobody."""
        for last in looks(timeout, interval, on_interval):
            try:
                meta: Meta = self.get_task_meta(task_id)
            except Unavailable:
                if last:
                    raise
                continue  # an outage ends nothing: the result is where it was
            if meta["status"] in states.READY_STATES:
                return meta
            if not meta["known"] and as_instruction_id(task_id) is not None:
                raise NotFound(
                    f"Instruction {task_id} was never submitted, or its result is kept no longer.",
                    {"instruction_id": task_id},
                )
        raise ResultTimeout(
            f"Instruction {task_id} is not done after {timeout} s; it goes on, and its result can "
            "be asked for later.",
            {"instruction_id": task_id},
        )

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], object] | None = None,
        on_interval: Callable[[], object] | None = None,
        max_iterations: int | None = None,
    ) -> Iterator[tuple[str, Meta]]:
        """Yield each id with its meta as it becomes final; one query per look for all of them."""
        waiting = list(dict.fromkeys(task_ids))
        for last in looks(timeout, interval, on_interval):
            if not waiting:
                return
            for task_id, meta in self._read(waiting).items():
                if meta["status"] in states.READY_STATES:
                    waiting.remove(task_id)
                    meta = meta | {"task_id": task_id}
                    if on_message is not None:
                        on_message(meta)
                    yield task_id, meta
            if last and waiting:
                raise ResultTimeout(f"{len(waiting)} results are not there after {timeout} s.")


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
    }


def _task_meta(row: TaskResult) -> Meta:
    return {
        "status": row.status,
        "result": row.result,
        "traceback": row.traceback,
        "date_done": row.date_done.isoformat(),
        "task_id": row.task_id,
        "known": True,
    } | (row.meta or {})


def _upsert(task_id: str, status: str, result: Any, traceback: str | None, meta: Meta) -> None:
    values = {"status": status, "result": result, "traceback": traceback, "meta": meta}
    statement = insert(TaskResult).values(task_id=task_id, **values)
    statement = statement.on_conflict_do_update(
        index_elements=["task_id"],
        set_=values | {"date_done": func.now()},
        # A task that is delivered twice keeps its first end (celery/backends/database does too).
        where=TaskResult.status != states.SUCCESS,
    )
    database().run(lambda session: session.execute(statement))


def _instruction_of(task_id: str, request: Any) -> uuid.UUID | None:
    """The instruction that a stage belongs to: every message of a cycle has it as its root."""
    root_id = getattr(request, "root_id", None)
    return as_instruction_id(root_id) if root_id else as_instruction_id(task_id)
