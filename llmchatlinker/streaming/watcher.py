"""The watcher: one thread per process sees who follows its streams, and which of them must stop.

One statement for all open streams, every 0.2 s while there are any: whether somebody wants a stream
cancelled, whether its instruction has ended otherwise, whether its attempt is still this worker's,
and the queues of those who follow it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from llmchatlinker.db.sessions import database
from llmchatlinker.defects import log_defect
from llmchatlinker.errors import Unavailable
from llmchatlinker.streaming.pushing import pushes

logger = logging.getLogger(__name__)

#: Seconds between two looks, and seconds that one waits for PostgreSQL.
INTERVAL = 0.2
PATIENCE = 2.0
#: Looks after the last stream for which the thread stays awake: to wake it costs a stream more.
LOOKS = 5

_LOOK = """
    SELECT s.attempt,
           CASE WHEN i.id IS NULL OR i.outcome IS NOT NULL OR i.final_at IS NOT NULL THEN 'ended'
                WHEN a.status IS DISTINCT FROM 'started' THEN 'lost'
                ELSE i.cancel_requested END,
           CASE WHEN i.follow THEN i.reply_to END,
           ARRAY(SELECT queue FROM waiters w WHERE w.instruction_id = s.id AND w.following)
      FROM unnest(CAST(CAST(%(streams)s AS text[]) AS uuid[]), CAST(%(attempts)s AS bigint[]))
             AS s (id, attempt)
      LEFT JOIN instructions i ON i.id = s.id
      LEFT JOIN attempts a ON a.id = s.attempt
"""

OnStop = Callable[[str], None]


class Watched(Protocol):
    """A stream, as far as the watcher knows it."""

    instruction_id: UUID
    attempt_id: int


class Watcher:
    """The thread and the open streams."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams: dict[int, tuple[UUID, OnStop | None]] = {}
        self._look_now = False
        self._asleep = False
        self._thread: threading.Thread | None = None

    def watch(self, stream: Watched, on_stop: OnStop) -> None:
        """Look after this stream until ``leave``."""
        with self._changed:
            self._streams[stream.attempt_id] = (stream.instruction_id, on_stop)
            if pushes().queues(stream.instruction_id) is None:
                self._look_now = True  # its first events wait until it is known who follows
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="streams", daemon=True)
                self._thread.start()
            if self._look_now or self._asleep:
                self._changed.notify()

    def leave(self, stream: Watched) -> None:
        """It is over."""
        with self._changed:
            self._streams.pop(stream.attempt_id, None)

    def _run(self) -> None:
        looked_at = time.monotonic()
        empty = 0  # looks in a row that had nothing to look after
        while True:
            with self._changed:
                self._asleep = not self._streams and empty > LOOKS
                while self._asleep and not self._streams:
                    self._changed.wait()
                if self._asleep:
                    self._asleep, looked_at = False, time.monotonic()  # its claim has just looked
                while not self._look_now and (left := looked_at + INTERVAL - time.monotonic()) > 0:
                    self._changed.wait(left)
                self._look_now = False
                looked_at = time.monotonic()
                streams = {attempt: found[0] for attempt, found in self._streams.items()}
            empty = 0 if streams else empty + 1
            if not streams:
                continue
            try:
                self._look(streams)
            except Unavailable:
                pass  # the pool has said it; the next look comes anyway
            except Exception as error:
                log_defect(logger, "The watcher of the streams failed; it looks again", error=error)

    def _look(self, streams: dict[int, UUID]) -> None:
        values = {"streams": [str(i) for i in streams.values()], "attempts": list(streams)}
        for attempt, reason, reply_to, waiting in database().statement(
            _LOOK, values, patience=PATIENCE, prepare=True
        ):
            queues = [reply_to, *waiting] if reply_to else waiting
            pushes().set_queues(streams[attempt], tuple(dict.fromkeys(queues)))
            if reason is not None:
                self._stop(attempt, reason)

    def _stop(self, attempt: int, reason: str) -> None:
        with self._changed:
            instruction_id, on_stop = self._streams.get(attempt, (None, None))
            if on_stop is None or instruction_id is None:
                return
            self._streams[attempt] = (instruction_id, None)
        try:
            on_stop(reason)
        except Exception as error:
            log_defect(logger, "A stream could not be stopped", error=error)


_current = Watcher()


def watcher() -> Watcher:
    """The process's."""
    return _current


def _after_fork() -> None:
    global _current
    _current = Watcher()


os.register_at_fork(after_in_child=_after_fork)
