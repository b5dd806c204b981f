"""What every kind of provider is asked and answers, whatever its wire looks like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from llmchatlinker.providers.calls import Call


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and how to speak to it. Timeouts in seconds, size in bytes.

    ``first_token_timeout`` and, between two pieces of an answer, ``read_timeout`` are for answers
    that are streamed; one that is not has ``read_timeout`` between two bytes.
    """

    name: str
    url: str
    api_key: str | None = field(default=None, repr=False)
    connect_timeout: float = 5.0
    read_timeout: float = 120.0
    total_timeout: float = 300.0
    answer_bytes: int = 16_777_216
    first_token_timeout: float = 120.0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: Whether answers are asked for in pieces, where somebody wants the pieces.
    stream: bool = True
    #: Whether a streamed answer is asked for its tokens; a few servers refuse the question.
    include_usage: bool = True


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to go on with: ``messages`` as role and content, oldest first.

    A content is a text, or a list of parts in OpenAI's shape (``instruction_data/content.py``).
    """

    model: str
    messages: list[dict[str, Any]] = field(repr=False)
    parameters: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say.

    ``cached_prompt_tokens``: how many of ``prompt_tokens`` it had in its cache. ``estimated``: some
    of it is our own estimate, of an answer that was broken off.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What a provider generated. ``tool_calls`` have OpenAI's shape, whatever the provider's kind."""

    content: str = field(repr=False)
    finish_reason: str | None = None
    tool_calls: list[Any] | None = field(default=None, repr=False)
    reasoning: str | None = field(default=None, repr=False)
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it arrives; the pieces of a kind, put together, are the whole.

    ``text``: of the answer, of the reasoning, or of a tool call's arguments. A tool call's ``id`` and
    ``name`` come once, with its first piece as a rule; ``index`` tells several calls apart.
    ``custom``: the tool takes text, and no JSON.
    """

    kind: Literal["text", "reasoning", "tool_call"]
    text: str = field(repr=False)
    index: int | None = None
    id: str | None = None
    name: str | None = None
    custom: bool = False


OnDelta = Callable[[Delta], None]


class Wire(Protocol):
    """A kind of provider.

    What calls it raises ProviderError or ProviderTimeout; ``chat`` also Cancelled.
    """

    def check(self, request: ChatRequest) -> None:
        """Raise InvalidData for what this kind of provider can't be asked. Calls nobody."""

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """Generate an answer: one HTTP request, never a second one.

        With ``on_delta`` it streams, unless the endpoint says not to: each piece is handed on as it
        comes, in the calling thread, and the answer that is returned is the sum of the pieces.
        ``call`` is how other threads break it off: ``call.cancel()`` makes it raise Cancelled, and
        ``call.usage`` has what was counted until then. Raises what ``check`` raises.
        """

    def models(self, endpoint: Endpoint) -> list[str]:
        """The names of the models that the provider says it serves."""
