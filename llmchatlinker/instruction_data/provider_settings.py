"""``settings`` of providers and LLMs: what an operator sets for the calls that go there.

An LLM's setting goes before its provider's, and that before the process's. What each does is in
docs/providers.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from llmchatlinker.instruction_data.fields import INTEGER_MAX, Data, is_decoded, shown

HEADERS = 50
HEADER_NAME_LENGTH = 100
HEADER_VALUE_LENGTH = 4_000

Seconds = Annotated[float, Field(gt=0, le=3_600)]
Count = Annotated[int, Field(ge=1, le=INTEGER_MAX)]

#: What LLMChatLinker itself puts into a request, so that nobody else may.
OURS = frozenset({"model", "messages", "stream", "stream_options", "n"})

#: Headers that are the connection's, the body's or the API key's (RFC 9110, section 7.6.1).
RESERVED_HEADERS = frozenset(
    {
        *("accept", "accept-encoding", "authorization", "connection", "content-encoding"),
        *("content-length", "content-type", "cookie", "expect", "host", "keep-alive", "te"),
        *("trailer", "transfer-encoding", "upgrade", "x-api-key"),
    }
)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name in OURS:
            raise ValueError(f"{name} is set by LLMChatLinker")
    return value


#: Passed to the provider as they are: temperature, max_tokens, top_p, stop, seed, tools, …
Parameters = Annotated[dict[str, Any], Field(max_length=100), AfterValidator(_parameters)]


def _headers(value: dict[str, str], info: ValidationInfo) -> dict[str, str]:
    seen: set[str] = set()
    for name, text in value.items():
        if len(name) > HEADER_NAME_LENGTH or _TOKEN.fullmatch(name) is None:
            raise ValueError(f"{shown(name)!r} is no name of a header")
        lower = name.lower()
        if lower in RESERVED_HEADERS or lower.startswith("proxy-"):
            instead = "; use api_key" if lower in ("authorization", "x-api-key") else ""
            raise ValueError(f"{name} is set by LLMChatLinker{instead}")
        if lower in seen:
            raise ValueError(f"{name} is there twice")
        seen.add(lower)
        if not is_decoded(info):  # by then a Fernet token, and longer than what was in it
            _check_header_value(name, text)
    return value


def _check_header_value(name: str, text: str) -> None:
    if not 0 < len(text) <= HEADER_VALUE_LENGTH:
        raise ValueError(f"{name} must have 1 to {HEADER_VALUE_LENGTH} characters")
    if not text.isascii() or not text.isprintable() or text != text.strip():
        raise ValueError(f"{name} must be printable ASCII without spaces around it")


Headers = Annotated[dict[str, str], Field(max_length=HEADERS), AfterValidator(_headers)]


class Timeouts(Data):
    """Seconds; what is left out comes from the settings of the process.

    ``connect`` to the server, ``first_token`` from there to the first piece of an answer, ``read``
    from one piece to the next, ``total`` for all of it.
    """

    connect: Seconds | None = None
    first_token: Seconds | None = None
    read: Seconds | None = None
    total: Seconds | None = None


class CallSettings(Data):
    """What can be set for a provider, and for one of its LLMs alone.

    ``headers`` may hold secrets: they are encrypted, and only their names are shown. ``stream``:
    ask for the answer in pieces; ``include_usage``: ask for the tokens of a streamed one. Both are
    on unless they are set. ``retries`` after a failed call comes from the process where it is left
    out; ``max_concurrency`` (calls at once) and ``requests_per_minute`` are unlimited then.
    """

    timeouts: Timeouts | None = None
    headers: Headers | None = Field(default=None, repr=False)
    parameters: Parameters | None = Field(default=None, repr=False)
    stream: bool | None = None
    include_usage: bool | None = None
    max_concurrency: Count | None = None
    requests_per_minute: Count | None = None
    retries: Annotated[int, Field(ge=0, le=10)] | None = None


class ProviderSettings(CallSettings):
    """``settings`` of a provider. ``user_concurrency``: calls at once that one user may have there;
    ``user_requests_per_minute``: calls in a minute.
    """

    user_concurrency: Count | None = None
    user_requests_per_minute: Count | None = None


class Price(Data):
    """What a million tokens cost, in the operator's currency.

    ``cached_prompt``: of the prompt's tokens those that the provider had in its cache; they cost
    what the others do where it is left out.
    """

    prompt: Annotated[float, Field(ge=0, lt=1e12)] = 0.0
    completion: Annotated[float, Field(ge=0, lt=1e12)] = 0.0
    cached_prompt: Annotated[float, Field(ge=0, lt=1e12)] | None = None


class LLMSettings(CallSettings):
    """``settings`` of an LLM. ``context_window`` counts tokens, question and answer together."""

    context_window: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    price: Price | None = None
