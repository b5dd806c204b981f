"""Anthropic's Messages API, whole and in pieces.

https://docs.anthropic.com/en/api/messages, https://docs.anthropic.com/en/api/messages-streaming and
https://docs.anthropic.com/en/api/errors. Events, blocks and deltas of a kind that is not known here
are passed over: new ones may come at any time.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from llmchatlinker.providers.addresses import from_root
from llmchatlinker.providers.anthropic_request import body
from llmchatlinker.providers.assembly import Assembly
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint, OnDelta, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean, count, parse
from llmchatlinker.providers.failures import cut_short, no_document, reported, unusable
from llmchatlinker.providers.http import Answer, answering, exchange
from llmchatlinker.providers.sse import ServerEvent

CHAT = "/messages"
VERSION = "2023-06-01"
#: Models on a page of their list, and pages at most.
PAGE = 1_000
PAGES = 20

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
#: The HTTP status that an error in the middle of a stream would have had.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def address(api_endpoint: str, path: str) -> str:
    """Where ``path`` is: below ``/v1``, whether the base says so or not."""
    return from_root(api_endpoint, "/v1", CHAT, path)


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {} if endpoint.api_key is None else {"x-api-key": endpoint.api_key}
    if not any(name.lower() == "anthropic-version" for name in endpoint.headers):
        headers["anthropic-version"] = VERSION
    return headers


class Anthropic:
    """The wire of kind ``anthropic``."""

    def check(self, request: ChatRequest) -> None:
        """What has no counterpart can't be asked."""
        body(request, streamed=False)

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """POST …/v1/messages."""
        streamed = on_delta is not None and endpoint.stream
        sent = body(request, streamed=streamed)
        assembly = Assembly(endpoint, call, on_delta, streamed=streamed)
        url = address(endpoint.url, CHAT)
        with answering(
            endpoint, "POST", url, sent, call, _headers(endpoint), streamed=streamed
        ) as answer:
            start = answer.first_byte() if streamed else b"{"
            if start in (b"{", b"["):
                _whole(endpoint, answer.document(), assembly)
            elif start == b"<":
                raise no_document(endpoint, b"".join(answer.pieces()))
            else:
                _Stream(endpoint, assembly).read(answer)
            return assembly.answer()

    def models(self, endpoint: Endpoint) -> list[str]:
        """GET …/v1/models, page by page."""
        names: list[str] = []
        after = ""
        for _ in range(PAGES):
            url = address(endpoint.url, "/models")
            url += f"{'&' if '?' in url else '?'}limit={PAGE}{after}"
            document = exchange(endpoint, "GET", url, None, Call(), _headers(endpoint))
            models = document.get("data") if isinstance(document, dict) else None
            if not isinstance(models, list):
                raise unusable(endpoint, "has no list of models")
            found = [item.get("id") for item in models if isinstance(item, dict)]
            names += [clean(name) for name in found if isinstance(name, str)]
            last = document.get("last_id")
            if document.get("has_more") is not True or not isinstance(last, str) or not found:
                break
            after = f"&after_id={quote(last, safe='')}"
        return sorted(set(names))


def _whole(endpoint: Endpoint, document: Any, assembly: Assembly) -> None:
    if isinstance(document, dict) and (document.get("type") == "error" or document.get("error")):
        raise _reported(endpoint, document)
    blocks = document.get("content") if isinstance(document, dict) else None
    if not isinstance(blocks, list):
        raise unusable(endpoint, "has no content")
    for index, block in enumerate(blocks):
        if isinstance(block, dict):
            _begin(block, index, assembly)
            if block.get("type") == "tool_use":
                _arguments(endpoint, block.get("input"), index, assembly)
    assembly.counted(_usage(document.get("usage")))
    assembly.finish(_finish(document.get("stop_reason")))


class _Stream:
    """The state of a stream: the blocks that are open, and what was counted."""

    def __init__(self, endpoint: Endpoint, assembly: Assembly) -> None:
        self._endpoint = endpoint
        self._assembly = assembly
        self._usage: dict[str, Any] = {}
        #: The input that a call of a tool began with, until a piece of it comes.
        self._inputs: dict[Any, Any] = {}

    def read(self, answer: Answer) -> None:
        """To its end."""
        with self._assembly.to_its_end():
            for event in answer.events():
                if not event.data.strip():
                    continue
                if self._take(event):
                    self._assembly.complete = True
                    answer.rest()
                    return

    def _take(self, event: ServerEvent) -> bool:
        """Whether this was the end."""
        try:
            data = parse(event.data)
        except (ValueError, RecursionError):
            if not event.closed:
                raise cut_short(self._endpoint) from None
            raise unusable(self._endpoint, "has an event that is no JSON") from None
        if not isinstance(data, dict):
            raise unusable(self._endpoint, "has an event that is no object")
        index = data.get("index")
        match data.get("type", event.name):
            case "message_start":
                message = data.get("message")
                usage = message.get("usage") if isinstance(message, dict) else None
                if isinstance(usage, dict):  # of an answer that has not begun
                    usage = {name: n for name, n in usage.items() if name != "output_tokens"}
                self._count(usage)
            case "content_block_start" if isinstance(data.get("content_block"), dict):
                block = data["content_block"]
                _begin(block, _key(index), self._assembly)
                if block.get("type") == "tool_use":
                    self._inputs[_key(index)] = block.get("input")
            case "content_block_delta" if isinstance(data.get("delta"), dict):
                self._piece(_key(index), data["delta"])
            case "content_block_stop":
                self._close(_key(index))
            case "message_delta":
                self._count(data.get("usage"))
                delta = data.get("delta")
                reason = delta.get("stop_reason") if isinstance(delta, dict) else None
                self._assembly.finish(_finish(reason))
            case "message_stop":
                return True
            case "error":
                raise _reported(self._endpoint, data)
        return False

    def _piece(self, key: int, delta: dict[str, Any]) -> None:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                self._assembly.text(text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                self._assembly.reasoning(text)
            case {"type": "input_json_delta", "partial_json": str(text)} if text:
                self._inputs.pop(key, None)
                self._assembly.tool_call(text, key=key)

    def _close(self, key: int) -> None:
        # Of a tool that takes nothing no piece comes; and some servers send the input at once.
        if key in self._inputs:
            _arguments(self._endpoint, self._inputs.pop(key), key, self._assembly)

    def _count(self, usage: Any) -> None:
        if isinstance(usage, dict):  # each is a new total, and may leave out what it was before
            self._usage |= {name: value for name, value in usage.items() if value is not None}
            self._assembly.counted(_usage(self._usage))


def _key(index: Any) -> int:
    return index if isinstance(index, int) else 0


def _begin(block: dict[str, Any], key: int, assembly: Assembly) -> None:
    match block:
        case {"type": "text", "text": str(text)}:
            assembly.text(text)
        case {"type": "thinking", "thinking": str(text)}:
            assembly.reasoning(text)
        case {"type": "tool_use", "id": str(id), "name": str(name)}:
            assembly.tool_call("", key=key, id=id, name=name)


def _arguments(endpoint: Endpoint, value: Any, key: int, assembly: Assembly) -> None:
    try:
        assembly.tool_call(value if value is not None else {}, key=key)
    except RecursionError:
        raise unusable(endpoint, "is nested too deeply") from None


def _finish(reason: Any) -> str | None:
    return _FINISH.get(reason, reason) if isinstance(reason, str) else None


def _reported(endpoint: Endpoint, document: dict[str, Any]) -> Exception:
    error = document.get("error")
    kind = error.get("type") if isinstance(error, dict) else None
    return reported(endpoint, document, _STATUSES.get(kind) if isinstance(kind, str) else None)


def _usage(usage: Any) -> Usage:
    """Anthropic counts what it has in its cache, and what it puts there, apart from the rest."""
    if not isinstance(usage, dict):
        return Usage()
    cached = count(usage.get("cache_read_input_tokens"))
    created = count(usage.get("cache_creation_input_tokens"))
    fresh, completion = count(usage.get("input_tokens")), count(usage.get("output_tokens"))
    prompt = None if fresh is None else fresh + (cached or 0) + (created or 0)
    total = None if prompt is None or completion is None else prompt + completion
    return Usage(prompt, completion, total, cached)
