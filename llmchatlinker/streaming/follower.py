"""A follower: what one who follows a stream has got of it, and what is next.

It is fed by two threads, with what is pushed and with what is read from PostgreSQL, and emptied by a
third. Events leave it in order and without a gap: what does not join on is not taken, and read.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from llmchatlinker.errors import InvalidData, LLMChatLinkerError, NotFound
from llmchatlinker.streaming.events import (
    CREATED,
    ENDINGS,
    FALLBACK,
    SNAPSHOT,
    Event,
    Partial,
    ending,
)
from llmchatlinker.streaming.reading import Found

#: Events that wait for a slow reader, about; what comes beyond that it reads from PostgreSQL later.
ROOM = 1_000


@dataclass(frozen=True, slots=True)
class ResponseEvent:
    """One event of a response. ``data``: the fields of its type, as docs/streaming.md names them."""

    sequence_number: int
    type: str
    data: dict[str, Any] = field(repr=False)

    @property
    def text(self) -> str:
        """The text that a delta adds to the answer; a snapshot's whole text; else nothing."""
        if self.type == SNAPSHOT or self.data.get("kind") == "text":
            return str(self.data["text"])
        return ""

    @property
    def reasoning(self) -> str:
        """The same of the reasoning."""
        if self.type == SNAPSHOT:
            return self.data["reasoning"] or ""
        return str(self.data["text"]) if self.data.get("kind") == "reasoning" else ""

    @property
    def is_last(self) -> bool:
        """The stream ends with it."""
        return self.type in ENDINGS

    def as_dict(self) -> dict[str, Any]:
        """For JSON: ``sequence_number``, ``type``, and the data beside them."""
        return {"sequence_number": self.sequence_number, "type": self.type, **self.data}


class Follower:
    """``after``: the number of the last event that is known already. ``snapshot``: what there is when
    it begins comes as one snapshot. ``wake`` is called, from any thread, when ``take`` has something.
    """

    def __init__(
        self,
        instruction_id: str,
        wake: Callable[[], None],
        *,
        after: int = 0,
        snapshot: bool = False,
        own: bool = False,
    ) -> None:
        self.instruction_id = instruction_id
        #: This process has submitted it, to be followed: nobody need be told that it follows.
        self.own = own
        #: Its instruction is committed, unless somebody has removed it.
        self.submitted = not own
        #: PostgreSQL has been looked at, and the stream is there.
        self.opened = own
        self._wake = wake
        self._lock = threading.Lock()
        self._events: deque[ResponseEvent] = deque()
        self._next = after + 1
        self._gathered = Partial() if snapshot else None
        self._created: Event = {}
        self._took_some = False
        self._ended = False
        self._behind = False
        self._error: LLMChatLinkerError | None = None

    @property
    def next(self) -> int:
        """The number of the event that it needs next."""
        return self._next

    @property
    def wants(self) -> bool:
        """A look into PostgreSQL may help."""
        return not self._ended and len(self._events) < ROOM

    # --- the reader's side ----------------------------------------------------------------------

    def take(self) -> ResponseEvent | None:
        """The next event; None when there is none yet. Raises what made it impossible to follow."""
        with self._lock:
            if self._events:
                return self._events.popleft()
            if self._error is not None:
                raise self._error
            return None

    @property
    def has_ended(self) -> bool:
        """It needs no more, but not everything may have been taken yet."""
        return self._ended

    @property
    def is_over(self) -> bool:
        """Nothing will come any more, and everything was taken."""
        return self._ended and not self._events and self._error is None

    def check(self) -> None:
        """Raise what made it impossible to follow."""
        with self._lock:
            if self._error is not None:
                raise self._error

    def catch_up(self) -> bool:
        """Whether it must look, since it was too slow for what was pushed. Says so once."""
        with self._lock:
            behind = self._behind and not self._events
            if behind:
                self._behind = False
            return behind

    # --- what feeds it --------------------------------------------------------------------------

    def pushed(self, first: int, last: int, events: list[Event] | None, *, copy: bool) -> bool:
        """Take a push; whether a look into PostgreSQL is needed because something is missing."""
        with self._lock:
            if self._ended or self._behind or last < self._next:
                return False
            if self._gathered is not None:
                return False  # it is being read, from the beginning
            if first > self._next or events is None:
                return True
            if len(self._events) >= ROOM:
                self._behind = True
                return False
            run = events[self._next - first :]
            self._take(deepcopy(run) if copy else run)
        self._wake()
        return False

    def found(self, found: Found) -> bool:
        """Take what was read; whether to look again at once."""
        with self._lock:
            if self._ended:
                return False
            if not found.known:
                return self._fail(_unknown(self.instruction_id))
            if not found.streams:
                return self._fail(_no_stream(self.instruction_id))
            before = (self.opened, self._next, self._ended)
            self.opened = True
            more = self._take_found(found)
            if (self.opened, self._next, self._ended) == before:
                return more
        self._wake()
        return more

    def fail(self, error: LLMChatLinkerError) -> None:
        """It can't be followed."""
        with self._lock:
            self._fail(error)

    def _fail(self, error: LLMChatLinkerError) -> bool:
        self._error = error
        self._ended = True
        self._wake()
        return False

    def _take_found(self, found: Found) -> bool:
        for first, last, events in found.rows:
            if first > self._next:
                self._compacted(first - 1, found.message or {})
            if last >= self._next:
                self._take(events[self._next - first :])
        if not found.complete:
            if len(self._events) < ROOM:
                return True
            self._behind = True
            return False
        self._behind = False
        if self._gathered is not None and not self._ended:
            self._show_gathered()
        if found.outcome is None or self._ended:
            return False
        if found.last >= self._next:
            return True  # the rest was stored between the two queries
        self._ended = True
        if found.last + 1 == self._next or self._took_some:
            # Nobody stored how it ended: everybody derives the same from the outcome.
            self._append(self._next, ending(found.outcome))
        return False

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if self._gathered is not None and event["type"] not in ENDINGS:
                if event["type"] == CREATED:
                    self._created = dict(event)
                elif event["type"] == FALLBACK:
                    self._created |= {k: v for k, v in event.items() if k in self._created}
                self._gathered.add([event])
                self._next += 1
                continue
            self._show_gathered()
            self._append(self._next, event)
            self._next += 1
            if event["type"] in ENDINGS:
                self._ended = True

    def _append(self, number: int, event: Event) -> None:
        data = {name: value for name, value in event.items() if name != "type"}
        self._events.append(ResponseEvent(number, event["type"], data))
        self._took_some = True

    def _show_gathered(self) -> None:
        """Everything so far as one snapshot, if it is to be one."""
        gathered, self._gathered = self._gathered, None
        if gathered is None or gathered.last == 0:
            return
        known = {name: value for name, value in self._created.items() if name != "type"}
        self._append(
            gathered.last,
            {
                "type": SNAPSHOT,
                **known,
                "text": gathered.content,
                "reasoning": gathered.reasoning,
                "tool_calls": gathered.tool_calls,
            },
        )

    def _compacted(self, through: int, message: dict[str, Any]) -> None:
        """The events up to ``through`` are no longer there one by one; the message has their text."""
        self._gathered = None
        empty = {"text": "", "reasoning": None, "tool_calls": None}
        self._append(through, {"type": SNAPSHOT, **empty, **message})
        self._next = through + 1


def _unknown(instruction_id: str) -> NotFound:
    return NotFound(
        f"Instruction {instruction_id} was never submitted, or is kept no longer.",
        {"instruction_id": instruction_id},
    )


def _no_stream(instruction_id: str) -> InvalidData:
    problem = "is not a generation, and has no events"
    return InvalidData(
        f"Instruction {instruction_id} {problem}.",
        {"fields": [{"field": "instruction_id", "problem": problem}]},
    )
