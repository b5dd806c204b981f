"""One call of a provider: its pieces go to the stream as they come, and whoever wants it ended can.

No transaction and no connection is held meanwhile.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmchatlinker.defects import log_defect
from llmchatlinker.errors import InternalError, LLMChatLinkerError
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Delta, Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.registry import wire
from llmchatlinker.streaming.events import Partial, delta_event
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.streaming.writer import open_stream
from llmchatlinker.telemetry import tracing
from llmchatlinker.units.routing import Route

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Turn:
    """A claimed turn: everything that its call and its end need."""

    instruction_id: uuid.UUID
    attempt_id: int
    endpoint: Endpoint
    request: ChatRequest
    route: Route
    user_id: int | None
    #: The number of the last event that is stored, and the queues of those who follow.
    after: int
    followers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Performed:
    """How a call went: the answer, or what came of it and the error that ended it."""

    said: ChatAnswer | Partial | None = field(repr=False)
    error: LLMChatLinkerError | None
    usage: Usage = field(default_factory=Usage)
    tail: Tail | None = field(default=None, repr=False)
    #: Seconds: the whole call, and until the first piece of the answer, if there was one.
    seconds: float = 0.0
    first_token: float | None = None


def call_provider(work: Turn) -> Performed:
    """One call, and only one."""
    with tracing.calling(work) as told:
        performed = _call(work)
        told(performed)
    return performed


def _call(work: Turn) -> Performed:
    call = Call()
    first_token: float | None = None

    def on_stop(reason: str) -> None:
        call.cancel()

    stream = open_stream(
        work.instruction_id,
        work.attempt_id,
        work.after,
        on_stop,
        followers=work.followers,
    )
    came: list[Delta] = []

    def on_delta(delta: Delta) -> None:
        nonlocal first_token
        if first_token is None:
            first_token = call.elapsed
        came.append(delta)
        stream.delta(delta)

    answer: ChatAnswer | None = None
    error: LLMChatLinkerError | None = None
    try:
        answer = wire(work.route.provider.kind).chat(work.endpoint, work.request, call, on_delta)
        if not came:
            for delta in _whole(answer):
                on_delta(delta)
    except LLMChatLinkerError as failed:
        error = failed
    except Exception as defect:
        message = "Instruction %s: its call failed with a defect"
        log_defect(logger, message, work.instruction_id, error=defect)
        error = InternalError(details={"exception": type(defect).__name__})
    finally:
        seconds = call.elapsed
        tail = stream.drain()
    if answer is not None:
        return Performed(answer, None, answer.usage, tail, seconds, first_token)
    said = Partial()
    said.add(delta_event(delta) for delta in came)
    return Performed(said, error, call.usage or Usage(), tail, seconds, first_token)


def _whole(answer: ChatAnswer) -> Iterator[Delta]:
    """An answer that came whole, as deltas."""
    if answer.reasoning:
        yield Delta("reasoning", answer.reasoning)
    if answer.content:
        yield Delta("text", answer.content)
    for index, item in enumerate(answer.tool_calls or ()):
        what = item[item["type"]]
        custom = item["type"] == "custom"
        text = what["input" if custom else "arguments"]
        yield Delta("tool_call", text, index, item["id"], what["name"], custom)
