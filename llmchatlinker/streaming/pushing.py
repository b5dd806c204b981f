"""Pushes: committed events on their way to live followers, by way of the broker. Best effort.

A push goes straight into the followers' queues, is not confirmed, and expires. What is lost, late or
too large is read from PostgreSQL by who misses it. One message carries what one flush has for one
queue, however many streams that is.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable
from uuid import UUID

from llmchatlinker.results.hints import send
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.events import ENDINGS, Event, as_json

#: Characters of the events in one push; what is larger is announced, and read from PostgreSQL.
PUSH_SIZE = 262_144
#: Streams whose followers are remembered, and pushes that wait until a stream's followers are known.
REMEMBERED = 10_000
WAITING = 16

Queues = tuple[str, ...]
#: The instruction, the numbers of the first and the last event, and the events as a JSON text.
Run = tuple[UUID, int, int, str]


class _Known:
    """What is known of a stream's followers; ``queues``: None until somebody has looked."""

    __slots__ = ("queues", "waiting")

    def __init__(self) -> None:
        self.queues: Queues | None = None
        self.waiting: list[Run] = []


class Pushes:
    """The followers of the streams of this process."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, _Known] = OrderedDict()
        self._lock = threading.Lock()

    def queues(self, instruction_id: UUID) -> Queues | None:
        """Where this stream's followers listen; None where that is not known yet."""
        known = self._known.get(instruction_id)
        return None if known is None else known.queues

    def set_queues(self, instruction_id: UUID, queues: Queues) -> None:
        """These are its followers now."""
        with self._lock:
            known = self._entry(instruction_id)
            known.queues = queues
            waiting, known.waiting = known.waiting, []
        _publish((run, queues) for run in waiting)

    def push(self, runs: Iterable[Run]) -> None:
        """Send these to whoever follows; to nobody yet, where the followers are not known yet."""
        addressed = []
        with self._lock:
            for run in runs:
                known = self._entry(run[0])
                if known.queues is None:
                    known.waiting = [*known.waiting[1 - WAITING :], run]
                elif known.queues:
                    addressed.append((run, known.queues))
        _publish(addressed)

    def forget(self, instruction_id: UUID) -> None:
        """Nothing more comes of this stream."""
        with self._lock:
            known = self._known.get(instruction_id)
            if known is not None and known.queues is not None:
                del self._known[instruction_id]

    def _entry(self, instruction_id: UUID) -> _Known:
        known = self._known.get(instruction_id)
        if known is None:
            known = self._known[instruction_id] = _Known()
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return known


def _publish(addressed: Iterable[tuple[Run, Queues]]) -> None:
    bodies: dict[str, list[str]] = defaultdict(list)
    for (instruction_id, first, last, text), queues in addressed:
        body = f'{{"id":"{instruction_id}","first":{first},"last":{last}'
        body += f',"events":{text}}}' if len(text) <= PUSH_SIZE else "}"
        for queue in queues:
            bodies[queue].append(body)
    for queue, parts in bodies.items():
        send(queue, f"[{','.join(parts)}]".encode())


_current = Pushes()


def pushes() -> Pushes:
    """The process's."""
    return _current


def push(instruction_id: UUID, first: int, events: list[Event]) -> None:
    """Send committed events, numbered from ``first``, to live followers; returns at once."""
    if not events or get_settings().broker_is_embedded:
        return
    if _current.queues(instruction_id) != ():  # somebody follows, or may
        _current.push([(instruction_id, first, first + len(events) - 1, as_json(events))])
    if events[-1]["type"] in ENDINGS:
        _current.forget(instruction_id)


def _after_fork() -> None:
    global _current
    _current = Pushes()


os.register_at_fork(after_in_child=_after_fork)
