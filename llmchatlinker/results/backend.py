"""Celery's result backend on PostgreSQL: the outcome in an instruction's row *is* its result.

Why not Celery's own database backend: outside a prefork child it makes a new engine, and so a new
connection, for every call (``celery/backends/database/session.py``). What is overridden of
``celery/backends/base.py``, and why:

* ``store_result``, ``mark_as_failure``, ``mark_as_revoked`` end an instruction by ``finalise`` only:
  Celery would write FAILURE over work that is committed when a hand-off fails (``_fail_chain``);
* ``wait_for``, ``get_many``: woken and not polling (``wakeups.py``), and never about the parents;
* the storage itself: JSONB, no pickle, one statement per write, one bounded pool.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from celery import states
from celery.backends.base import BaseBackend
from celery.result import result_from_tuple
from kombu.exceptions import KombuError
from vine import promise

from llmchatlinker.db.sessions import database
from llmchatlinker.errors import InternalError, NotFound, ResultTimeout
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.outages import BROKER_ERRORS, broker_failed
from llmchatlinker.results import tasks
from llmchatlinker.results.chords import GROUP, part_returned
from llmchatlinker.results.reading import Meta, end, read
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: What of a task's meta has a column; the rest is kept beside.
COLUMNS = ("status", "result", "traceback", "date_done")
#: Seconds between two calls of ``on_interval``; Celery's own default.
DEFAULT_INTERVAL = 0.5


class PostgresBackend(BaseBackend):
    """Results of instructions, and of other tasks on the same app."""

    supports_native_join = True
    persistent = True

    def __reduce__(self, args: Any = (), kwargs: Any = None) -> Any:
        """A result that is pickled comes back with the app's backend, and not with a second one."""
        return (_backend, ())

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
            end(instruction_id, None)
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
            if isinstance(exc, BROKER_ERRORS):
                broker_failed(exc)  # which says so once for all that are left to the sweeper
            else:
                logger.warning(
                    "Instruction %s: hand-off failed, left to the sweeper", instruction_id
                )
        else:
            end(instruction_id, InternalError(details={"exception": type(exc).__name__}))

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """A revoked or expired stage: a call that is going on keeps what has come of it."""
        from llmchatlinker.cancels import revoke  # which publishes, and so needs this package

        instruction_id = _instruction_of(task_id, request)
        if instruction_id is None:
            super().mark_as_revoked(task_id, reason, request, store_result, state)
        else:
            revoke(instruction_id)

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
        kept = {key: value for key, value in meta.items() if key not in COLUMNS}
        tasks.keep(task_id, state, result, traceback, kept)

    def _save_group(self, group_id: str, result: Any) -> Any:
        tasks.keep(
            GROUP + group_id,
            states.SUCCESS,
            result.as_tuple(),
            None,
            {},
            anew=True,
            patience=_patience(),
        )
        return result

    def _delete_group(self, group_id: str) -> None:
        tasks.remove(GROUP + group_id, _patience())

    def _forget(self, task_id: str) -> None:
        """Remove the result. An instruction that is not final is still work, and stays."""
        wakeups().forget(task_id)
        instruction_id = as_instruction_id(task_id)
        if instruction_id is None:
            tasks.remove(task_id, _patience())
            return
        # Without its instruction a stream can't be followed, so its events go, too.
        statement = """
            WITH gone AS (
                DELETE FROM instructions WHERE id = %(id)s AND final_at IS NOT NULL RETURNING id
            )
            DELETE FROM events USING gone WHERE events.instruction_id = gone.id
        """
        database().statement(statement, {"id": str(instruction_id)}, patience=_patience())

    def cleanup(self) -> None:
        """What the task ``celery.backend_cleanup`` does: results of other tasks expire."""
        if self.expires:
            tasks.remove_older(self.expires)

    # --- chords ---------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Keep the header's group; its last part starts the body (``chords.py``)."""
        self.app.GroupResult(*header_result_args).save(backend=self)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """A part of a chord's header has ended."""
        part_returned(self, request)

    # --- reading --------------------------------------------------------------------------------

    def _get_task_meta_for(self, task_id: str) -> Meta:
        meta: Meta = self.meta_from_decoded(read([task_id])[task_id])
        return meta

    def _restore_group(self, group_id: str) -> Meta | None:
        meta = read([GROUP + group_id])[GROUP + group_id]
        if not meta["known"]:
            return None
        return meta | {"result": result_from_tuple(meta["result"], self.app)}

    def task_result_exists(self, task_id: str) -> bool:
        """Whether the id was submitted, whatever has become of it."""
        return bool(read([task_id])[task_id]["known"])

    # --- waiting --------------------------------------------------------------------------------

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float | None = None,
        no_ack: bool = True,
        on_interval: Callable[[], object] | None = None,
    ) -> Meta:
        """Wait for one result. ResultTimeout when it takes longer, NotFound for an id of nobody.

        ``interval``: seconds between two calls of ``on_interval``; nobody polls.
        """
        if not _listens(on_interval):
            on_interval = None
        for _, meta in self.get_many([task_id], timeout, interval, on_interval=on_interval):
            return meta
        raise AssertionError("get_many yields every id or raises")

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
        """Yield each id with its meta as it becomes final. ``max_iterations``: look once, and return."""
        waiting = dict.fromkeys(task_ids)
        if max_iterations or (timeout is not None and timeout <= 0):
            yield from self._at_once(list(waiting), on_message, give_up=not max_iterations)
            return
        arrived: SimpleQueue[tuple[str, Meta]] = SimpleQueue()
        callbacks = {task_id: partial(_put, arrived, task_id) for task_id in waiting}
        pause = None if on_interval is None else (interval or DEFAULT_INTERVAL)
        end = None if timeout is None else time.monotonic() + timeout
        for task_id, on_ready in callbacks.items():
            wakeups().wait(task_id, on_ready)
        try:
            while waiting:
                found = _take(arrived, end, pause)
                if found is None and end is not None and time.monotonic() >= end:
                    found = self.last_look(list(waiting), timeout)
                if found is None:
                    if on_interval is not None:
                        on_interval()
                    continue
                task_id, meta = found
                if task_id not in waiting:
                    continue
                del waiting[task_id]
                meta = self.understood(task_id, meta)
                if on_message is not None:
                    on_message(meta)
                yield task_id, meta
        finally:
            for task_id in waiting:
                wakeups().leave(task_id, callbacks[task_id])

    def _at_once(
        self,
        task_ids: list[str],
        on_message: Callable[[Meta], object] | None,
        *,
        give_up: bool,
    ) -> Iterator[tuple[str, Meta]]:
        """What is there now; to give up is to raise ResultTimeout for what is not."""
        late: list[str] = []
        for task_id, meta in read(task_ids).items():
            if not meta["ended"]:
                late.append(task_id)
                continue
            meta = self.understood(task_id, meta)
            if on_message is not None:
                on_message(meta)
            yield task_id, meta
        if late and give_up:
            raise _too_late(late, 0)

    def last_look(self, task_ids: list[str], timeout: float | None) -> tuple[str, Meta]:
        """The time is up: what is there after all, or else ResultTimeout."""
        for task_id, meta in read(task_ids).items():
            if meta["ended"]:
                return task_id, meta
        raise _too_late(task_ids, timeout)

    def understood(self, task_id: str, meta: Meta) -> Meta:
        """A meta as Celery's results take it; NotFound for an id of nobody."""
        if not meta["known"]:
            raise _never_submitted(task_id)
        decoded: Meta = self.meta_from_decoded(meta) | {"task_id": task_id}
        return decoded


def _backend() -> Any:
    from llmchatlinker.celery_app import app

    return app.backend


def _too_late(task_ids: list[str], timeout: float | None) -> ResultTimeout:
    which = f"Instruction {task_ids[0]} is" if len(task_ids) == 1 else f"{len(task_ids)} are"
    return ResultTimeout(
        f"{which} not done after {timeout} s. It goes on; ask for the result later.",
        {"instruction_ids": task_ids[:100]},
    )


def _put(arrived: SimpleQueue[tuple[str, Meta]], task_id: str, meta: Meta) -> None:
    arrived.put((task_id, meta))


def _take(
    arrived: SimpleQueue[tuple[str, Meta]], end: float | None, pause: float | None
) -> tuple[str, Meta] | None:
    """What has arrived; None when the end or the pause comes first."""
    spans = [] if end is None else [max(0.0, end - time.monotonic())]
    spans += [] if pause is None else [pause]
    try:
        return arrived.get(timeout=min(spans, default=None))
    except Empty:
        return None


def _never_submitted(task_id: str) -> NotFound:
    return NotFound(
        f"Instruction {task_id} was never submitted, or its result is kept no longer.",
        {"instruction_id": task_id},
    )


def _listens(on_interval: Callable[[], object] | None) -> bool:
    """Whether anybody would hear it: ``AsyncResult.get`` hands over a promise in any case.

    A thousand waiting threads would wake twice a second for nothing.
    """
    if isinstance(on_interval, promise):
        return on_interval.fun is not None or bool(on_interval.listeners)
    return on_interval is not None


def _patience() -> float:
    return get_settings().client_patience


def _instruction_of(task_id: str, request: Any) -> uuid.UUID | None:
    """The instruction that a stage belongs to: every message of a cycle has it as its root."""
    root_id = getattr(request, "root_id", None)
    return as_instruction_id(root_id) if root_id else as_instruction_id(task_id)
