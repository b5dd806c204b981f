"""The writer: one thread per process commits the events of all its streams together.

Whoever reads from a provider hands a delta over and goes on. The writer stores what has come, at most
every 50 ms, in one statement for all streams; a followed stream's first delta at once. What is stored
is pushed to the followers.

The statement locks each stream's instruction and attempt, and stores nothing for one that has ended
or is another worker's by now. It never waits for a lock: whose rows are locked comes with the next
flush. So no stream holds up another, and PostgreSQL being gone holds up nobody: events wait here.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from llmchatlinker.db.sessions import database
from llmchatlinker.defects import log_defect
from llmchatlinker.errors import Unavailable
from llmchatlinker.providers.base import Delta
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.events import DELTA, Event, as_json, delta_event
from llmchatlinker.streaming.pushing import Run, pushes
from llmchatlinker.streaming.store import ROW_EVENTS
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.streaming.watcher import OnStop, watcher

__all__ = ["Stream", "Tail", "open_stream"]

logger = logging.getLogger(__name__)

#: Seconds between two flushes, and until another try for a stream whose rows were locked.
INTERVAL = 0.05
LOCKED = 0.01
#: Seconds for which the thread goes on looking by itself: to wake it costs each stream more than that.
LINGER = 1.0
#: Seconds that ``drain`` waits for a flush under way, and that one try to flush takes at most.
PATIENCE = 2.0

_FLUSH = """
    WITH live AS (
        SELECT i.id, a.id AS attempt_id
          FROM unnest(CAST(CAST(%(streams)s AS text[]) AS uuid[]), CAST(%(attempts)s AS bigint[]))
                 AS s (id, attempt)
          JOIN instructions i ON i.id = s.id
          JOIN attempts a ON a.id = s.attempt
         WHERE a.status = 'started' AND i.outcome IS NULL AND i.final_at IS NULL
           FOR NO KEY UPDATE OF i, a SKIP LOCKED
    ), stored AS (
        INSERT INTO events (instruction_id, first, last, attempt_id, events)
        SELECT live.id, n.first, n.last, live.attempt_id, CAST(n.events AS jsonb)
          FROM unnest(CAST(%(of)s AS bigint[]), CAST(%(firsts)s AS int[]), CAST(%(lasts)s AS int[]),
                      CAST(%(texts)s AS text[])) AS n (attempt, first, last, events)
          JOIN live ON live.attempt_id = n.attempt
         -- What goes before was deleted with its chat: nothing of the stream comes back.
         WHERE n.first = 1 OR EXISTS (SELECT FROM events had WHERE had.instruction_id = live.id)
        ON CONFLICT DO NOTHING
    ), shown AS (
        UPDATE attempts SET first_delta_at = clock_timestamp()
          FROM live
         WHERE attempts.id = live.attempt_id AND attempts.first_delta_at IS NULL
           AND live.attempt_id = ANY (CAST(%(fresh)s AS bigint[]))
    )
    SELECT attempt_id FROM live
"""


class Stream:
    """A response as it comes, of one attempt. Made by ``open_stream``."""

    __slots__ = (
        "_cut",
        "_fresh",
        "_open",
        "_pending",
        "_rows",
        "_stored",
        "_stored_deltas",
        "_writer",
        "attempt_id",
        "instruction_id",
    )

    def __init__(self, writer: Writer, instruction_id: UUID, attempt_id: int, after: int) -> None:
        self.instruction_id = instruction_id
        self.attempt_id = attempt_id
        self._writer = writer
        self._open = True
        #: The number of the last event that is known to be stored; the pending ones follow it.
        self._stored = after
        self._pending: list[Event] = []
        #: Rows that a flush is to store, or has perhaps stored: they are never cut differently.
        self._rows: list[tuple[int, int, str]] = []
        #: How many of the pending events are in them.
        self._cut = 0
        self._fresh = True
        self._stored_deltas = False

    def delta(self, delta: Delta) -> None:
        """A piece of the answer. Returns at once, never raises, and waits for nobody."""
        self._writer.add(self, delta_event(delta))

    def event(self, type: str, data: dict[str, Any]) -> None:
        """Any other event, in its place between the deltas."""
        self._writer.add(self, {"type": type, **data})

    @property
    def waiting(self) -> int:
        """How many events are not known to be stored yet."""
        return len(self._pending)

    def drain(self) -> Tail:
        """Let go of the stream: what is not stored yet is for the caller's own transaction.

        Waits for a flush under way, 2 s at most. What comes after this is ignored.
        """
        watcher().leave(self)
        return self._writer.drain(self)


class Writer:
    """The thread and the streams that have something to store; one per process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._dirty: dict[Stream, None] = {}
        self._under_way: Sequence[Stream] = ()
        self._due_at = math.inf
        self._wakes_at = math.inf
        self._flushed_at = 0.0
        self._thread: threading.Thread | None = None

    def add(self, stream: Stream, event: Event) -> None:
        """Take an event over."""
        with self._changed:
            if not stream._open:
                return
            stream._pending.append(event)
            due_at = self._flushed_at + INTERVAL
            if stream._fresh and event["type"] == DELTA:
                followed = get_settings().broker_is_embedded  # where nobody says who follows
                if not followed:
                    queues = pushes().queues(stream.instruction_id)
                    followed = queues is None or bool(queues)
                due_at = 0.0 if followed else time.monotonic() + INTERVAL
                stream._fresh = False
            if not self._dirty or due_at < self._due_at:
                self._due_at = due_at
                if due_at < self._wakes_at:
                    self._changed.notify_all()
            self._dirty[stream] = None

    def start(self) -> None:
        """See that the thread runs."""
        if self._thread is None or not self._thread.is_alive():
            with self._changed:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                    self._thread.start()

    def drain(self, stream: Stream) -> Tail:
        """See ``Stream.drain``."""
        end = time.monotonic() + PATIENCE
        with self._changed:
            stream._open = False
            self._dirty.pop(stream, None)
            while stream in self._under_way and time.monotonic() < end:
                self._changed.wait(end - time.monotonic())
            perhaps = stream._pending[: stream._cut]
            deltas = stream._stored_deltas or any(event["type"] == DELTA for event in perhaps)
            cuts = tuple(last - stream._stored for _, last, _ in stream._rows)
            return Tail(stream._stored + 1, list(stream._pending), deltas, cuts)

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            streams = self._next()
            try:
                self._flush(streams)
            except Unavailable:
                self._again(streams)  # the pool has said it; events wait
            except Exception as error:
                log_defect(logger, "Events can't be stored", error=error)
                self._one_by_one(streams)
            with self._changed:
                self._under_way = ()
                self._changed.notify_all()

    def _next(self) -> list[Stream]:
        """Wait until a flush is due; returns the streams that have something to store."""
        with self._changed:
            now = time.monotonic()
            lingers_until = now + LINGER
            while not self._dirty or self._due_at > now:
                self._wakes_at = self._due_at
                if not self._dirty:
                    self._wakes_at = now + INTERVAL if now < lingers_until else math.inf
                left = self._wakes_at - now
                self._changed.wait(None if left == math.inf else left)
                now = time.monotonic()
                if self._dirty:
                    lingers_until = now + LINGER
            streams = list(self._dirty)
            self._dirty.clear()
            self._due_at = math.inf
            self._flushed_at = time.monotonic()
            for stream in streams:
                _cut(stream)
            self._under_way = streams
            return streams

    def _flush(self, streams: Sequence[Stream]) -> None:
        rows: list[tuple[int, int, int, str]] = []
        for stream in streams:
            for index, (first, last, text) in enumerate(stream._rows):
                if not text:  # JSON is made here, where no lock is held
                    start = first - stream._stored - 1
                    text = as_json(stream._pending[start : last - stream._stored])
                    stream._rows[index] = (first, last, text)
                rows.append((stream.attempt_id, first, last, text))
        values = {
            "streams": [str(stream.instruction_id) for stream in streams],
            "attempts": [stream.attempt_id for stream in streams],
            "of": [row[0] for row in rows],
            "firsts": [row[1] for row in rows],
            "lasts": [row[2] for row in rows],
            "texts": [row[3] for row in rows],
            "fresh": [s.attempt_id for s in streams if not s._stored_deltas],
        }
        found = database().statement(_FLUSH, values, patience=PATIENCE, prepare=True)
        self._stored(streams, {row[0] for row in found})

    def _stored(self, streams: Sequence[Stream], attempts: set[int]) -> None:
        runs: list[Run] = []
        locked = []
        with self._changed:
            for stream in streams:
                if stream.attempt_id not in attempts:
                    locked.append(stream)
                    continue
                runs += [(stream.instruction_id, *row) for row in stream._rows]
                stream._stored = stream._rows[-1][1]
                if not stream._stored_deltas:
                    stored = stream._pending[: stream._cut]
                    stream._stored_deltas = any(event["type"] == DELTA for event in stored)
                del stream._pending[: stream._cut]
                stream._rows, stream._cut = [], 0
        if locked:
            self._again(locked, LOCKED)
        if runs and not get_settings().broker_is_embedded:
            pushes().push(runs)

    def _again(self, streams: Sequence[Stream], pause: float = INTERVAL) -> None:
        with self._changed:
            due_at = time.monotonic() + pause
            self._due_at = min(self._due_at, due_at) if self._dirty else due_at
            self._dirty.update(dict.fromkeys(stream for stream in streams if stream._open))

    def _one_by_one(self, streams: Sequence[Stream]) -> None:
        """One of them can't be stored. It is left to its own transaction; the others go on."""
        for stream in streams:
            try:
                if stream._rows:
                    self._flush([stream])
            except Unavailable:
                self._again([stream])
            except Exception:
                logger.error("The events of instruction %s can't be stored", stream.instruction_id)
                with self._changed:
                    stream._open = False


def _cut(stream: Stream) -> None:
    """Cut what is pending into rows, behind those that are perhaps stored already."""
    while stream._cut < len(stream._pending):
        count = min(ROW_EVENTS, len(stream._pending) - stream._cut)
        first = stream._stored + 1 + stream._cut
        stream._rows.append((first, first + count - 1, ""))
        stream._cut += count


_current = Writer()


def open_stream(
    instruction_id: UUID,
    attempt_id: int,
    after: int,
    on_stop: OnStop,
    followers: Sequence[str] | None = None,
) -> Stream:
    """Begin to stream an attempt that was just committed to the ledger.

    ``after``: the number of the last event that is stored. ``on_stop(reason)`` is called at most once,
    from another thread, within 0.3 s of the row's ``cancel_requested`` being set (the reason is its
    value), of the instruction having an outcome or being final otherwise (``ended``), and of the
    attempt being no longer ``started`` (``lost``). ``followers``: the queues of those who follow, as
    far as the caller has seen; None where nobody has looked.
    """
    stream = Stream(_current, instruction_id, attempt_id, after)
    if followers is not None:
        pushes().set_queues(instruction_id, tuple(followers))
    _current.start()
    watcher().watch(stream, on_stop)
    return stream


def _after_fork() -> None:
    global _current
    _current = Writer()


os.register_at_fork(after_in_child=_after_fork)
