"""Responses as their readers see them: an iterator of events. ``async_responses.py``: for asyncio."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from llmchatlinker.client_methods import split
from llmchatlinker.errors import InvalidData, Unavailable
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.instructions import LLM_RESPONSE_GENERATE, LLM_RESPONSE_REGENERATE
from llmchatlinker.orchestrator import submit_followed
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.events import SNAPSHOT
from llmchatlinker.streaming.follower import Follower, ResponseEvent
from llmchatlinker.streaming.following import Following, following
from llmchatlinker.submission import check

#: Looks for which PostgreSQL may be late before who begins to follow is told that it is gone.
PATIENCES = 3


class _Response:
    """What both kinds of response share. Its follower is unregistered when it is closed, or when
    nobody has it any longer.
    """

    _follower: Follower
    _text = ""

    def _adopt(self, follower: Follower) -> None:
        self._follower = follower
        self._registry: Following = following()
        self._close = weakref.finalize(self, self._registry.remove, follower)
        self._close.atexit = False

    @property
    def instruction_id(self) -> str:
        """The instruction, for ``follow``, ``result`` and ``cancel``, from any process."""
        return self._follower.instruction_id

    @property
    def text(self) -> str:
        """The answer as far as it was read here."""
        return self._text

    def _step(self) -> ResponseEvent | None:
        """The next event, if there is one."""
        event = self._follower.take()
        if event is None:
            if self._follower.catch_up():
                self._registry.look(self._follower)
            return None
        self._text = event.text if event.type == SNAPSHOT else self._text + event.text
        if event.is_last:
            self._close()
        return event

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.instruction_id}>"


class ResponseStream(_Response):
    """The events of a response, to iterate over; made by ``stream`` and ``follow`` of the client.

    Leaving the loop does not end the response: it goes on, and can be followed again. Raises NotFound
    when it is deleted meanwhile.
    """

    def __init__(self, follower: Follower, some: threading.Event) -> None:
        self._adopt(follower)
        self._some = some

    def result(self) -> InstructionResult:
        """The instruction's result; ``.get()`` waits for the envelope."""
        return InstructionResult(self.instruction_id)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ResponseEvent:
        while self._close.alive and not self._follower.is_over:
            self._some.clear()
            event = self._step()
            if event is not None:
                return event
            if not self._follower.is_over:
                self._some.wait()
        self.close()
        raise StopIteration

    def close(self) -> None:
        """Follow no longer."""
        self._close()
        self._some.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def opened(self) -> Self:
        """Itself, once PostgreSQL has been asked. Raises NotFound, InvalidData or Unavailable."""
        patience = get_settings().client_patience * PATIENCES
        while not self._follower.opened:
            self._some.clear()
            self._follower.check()
            if not self._follower.opened and not self._some.wait(patience):
                self.close()
                raise no_answer()
        return self


def submit_stream(arguments: Mapping[str, Any], wake: Callable[[], None]) -> Follower:
    """Submit a generation, or with ``message_id`` a regeneration; its follower, fed from now on.

    Raises what ``orchestrator.submit`` raises.
    """
    regenerates = arguments.get("message_id") is not None
    spec = LLM_RESPONSE_REGENERATE if regenerates else LLM_RESPONSE_GENERATE
    name, data, beside = split(spec, dict(arguments))
    submission = check(name, data, beside["deadline"], beside["idempotency_key"])
    registry = following()
    queue = registry.queue()
    follower = Follower(str(submission.id), wake, own=True)
    registry.add(follower)  # before it is sent: no push is to come too early
    try:
        found = submit_followed(submission, queue)
    except BaseException:
        registry.remove(follower)
        raise
    if found == submission.id:
        follower.submitted = True
        return follower
    registry.remove(follower)
    return follow(str(found), wake)  # submitted before, under the same idempotency key


def follow(
    instruction_id: str, wake: Callable[[], None], *, after: int = 0, snapshot: bool = False
) -> Follower:
    """A follower of what anybody submitted, fed from now on. Raises InvalidData for no number."""
    if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**31 - 1:
        raise _wrong("starting_after", "is the number of an event, or 0")
    if snapshot and after:
        raise _wrong(
            "starting_after", "has no meaning with snapshot, which starts at the beginning"
        )
    follower = Follower(_id(instruction_id), wake, after=after, snapshot=snapshot)
    following().add(follower)
    return follower


def _id(instruction_id: object) -> str:
    found = as_instruction_id(instruction_id)
    if found is None:
        raise _wrong("instruction_id", "is not the id of an instruction")
    return str(found)


def _wrong(name: str, problem: str) -> InvalidData:
    return InvalidData(f"{name} {problem}.", {"fields": [{"field": name, "problem": problem}]})


def no_answer() -> Unavailable:
    return Unavailable("PostgreSQL does not answer.", {"server": "postgresql"})
