"""What every kind of provider is asked and answers, whatever its wire looks like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llmchatlinker.providers.calls import Call


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and how to speak to it. Timeouts in seconds, size in bytes."""

    name: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    connect_timeout: float = 5.0
    read_timeout: float = 120.0
    total_timeout: float = 300.0
    answer_bytes: int = 16_777_216


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to go on with: ``messages`` as role and content, oldest first."""

    model: str
    messages: list[dict[str, Any]] = field(repr=False)
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a provider generated."""

    content: str = field(repr=False)
    finish_reason: str | None = None
    tool_calls: list[Any] | None = field(default=None, repr=False)
    reasoning: str | None = field(default=None, repr=False)
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it arrives; the pieces of a kind, put together, are the whole.

    ``text``: of the answer, of the reasoning, or of a tool call's arguments. A tool call's first piece
    also carries its ``id`` and ``name``; ``index`` tells several calls of one answer apart.
    """

    kind: Literal["text", "reasoning", "tool_call"]
    text: str = field(repr=False)
    index: int | None = None
    id: str | None = None
    name: str | None = None


OnDelta = Callable[[Delta], None]


class Wire(Protocol):
    """A kind of provider. Both raise ProviderError or ProviderTimeout; ``chat`` also Cancelled."""

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """Generate an answer: one HTTP request, never a second one.

        With ``on_delta`` it streams: each piece is handed on as it comes, in the calling thread, and
        the answer that is returned is the sum of the pieces. ``call`` is how other threads break it
        off: ``call.cancel()`` makes it raise Cancelled.
        """

    def models(self, endpoint: Endpoint) -> list[str]:
        """The names of the models that the provider says it serves."""
