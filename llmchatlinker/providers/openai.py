"""OpenAI's chat completions, as OpenAI, vLLM, llama.cpp, Ollama, LM Studio and many more speak it.

The shapes are those of https://platform.openai.com/docs/api-reference/chat and, of the pieces,
https://platform.openai.com/docs/api-reference/chat-streaming; ``reasoning_content`` is what vLLM and
DeepSeek call the text that OpenAI does not show, ``reasoning`` what OpenRouter and others do.
"""

from __future__ import annotations

from typing import Any

from llmchatlinker.providers.addresses import from_base
from llmchatlinker.providers.assembly import Assembly
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint, OnDelta, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean, count, parse
from llmchatlinker.providers.failures import cut_short, no_document, reported, unusable
from llmchatlinker.providers.http import Answer, answering, bearer, exchange
from llmchatlinker.providers.sse import ServerEvent

CHAT = "/chat/completions"
DONE = "[DONE]"


def address(api_endpoint: str, path: str) -> str:
    """Where ``path`` is: below ``…/v1``, or whatever the base says."""
    return from_base(api_endpoint, "/v1", CHAT, path)


class OpenAI:
    """The wire of kind ``openai``."""

    def check(self, request: ChatRequest) -> None:
        """Everything goes as it is."""

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """POST …/chat/completions."""
        streamed = on_delta is not None and endpoint.stream
        body = request.parameters | {
            "model": request.model,
            "messages": request.messages,
            "stream": streamed,
        }
        if streamed and endpoint.include_usage:
            body["stream_options"] = {"include_usage": True}
        assembly = Assembly(endpoint, call, on_delta, streamed=streamed)
        url = address(endpoint.url, CHAT)
        with answering(
            endpoint, "POST", url, body, call, bearer(endpoint), streamed=streamed
        ) as answer:
            start = answer.first_byte() if streamed else b"{"
            if start in (b"{", b"["):
                _whole(endpoint, answer.document(), assembly)
            elif start == b"<":
                raise no_document(endpoint, b"".join(answer.pieces()))
            else:
                _stream(endpoint, answer, assembly)
            return assembly.answer()

    def models(self, endpoint: Endpoint) -> list[str]:
        """GET …/models."""
        url = address(endpoint.url, "/models")
        document = exchange(endpoint, "GET", url, None, Call(), bearer(endpoint))
        models = document.get("data") if isinstance(document, dict) else None
        if not isinstance(models, list):
            raise unusable(endpoint, "has no list of models")
        names = [item.get("id") for item in models if isinstance(item, dict)]
        return sorted(clean(name) for name in names if isinstance(name, str))


def _whole(endpoint: Endpoint, document: Any, assembly: Assembly) -> None:
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        if isinstance(document, dict) and document.get("error"):
            raise reported(endpoint, document)
        raise unusable(endpoint, "has no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise unusable(endpoint, "has a choice without a message")
    _take(endpoint, message, assembly)
    assembly.finish(choice.get("finish_reason"))
    assembly.counted(_usage(document.get("usage")))


def _stream(endpoint: Endpoint, answer: Answer, assembly: Assembly) -> None:
    begun = False
    with assembly.to_its_end():
        for event in answer.events():
            if event.data.strip() == DONE:
                if not begun:
                    raise unusable(endpoint, "has no choices")
                assembly.complete = True
                answer.rest()
                return
            if event.data.strip() and _chunk(endpoint, event, assembly):
                begun = True


def _chunk(endpoint: Endpoint, event: ServerEvent, assembly: Assembly) -> bool:
    """Take a piece; returns whether it was one of the answer itself."""
    try:
        chunk = parse(event.data)
    except (ValueError, RecursionError):
        if not event.closed:
            raise cut_short(endpoint) from None
        raise unusable(endpoint, "has a piece that is no JSON") from None
    if not isinstance(chunk, dict):
        raise unusable(endpoint, "has a piece that is no object")
    if chunk.get("error") or event.name == "error" or chunk.get("object") == "error":
        raise reported(endpoint, chunk)
    if isinstance(chunk.get("usage"), dict):
        assembly.counted(_usage(chunk["usage"]))
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict) or choice.get("index") not in (0, None):
        return False
    message = choice.get("delta") or choice.get("message") or {}
    if not isinstance(message, dict):
        raise unusable(endpoint, "has a piece whose delta is no object")
    _take(endpoint, message, assembly)
    assembly.finish(choice.get("finish_reason"))
    return True


def _take(endpoint: Endpoint, message: dict[str, Any], assembly: Assembly) -> None:
    """A message or a piece of one: they have the same fields."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        assembly.reasoning(reasoning)
    assembly.text(_text(endpoint, message.get("content")))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        assembly.refused = True
        assembly.text(refusal)
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict):
            _tool_call(endpoint, call, assembly)


def _text(endpoint: Endpoint, content: Any) -> str:
    if content is None:  # a refusal, or nothing but tool calls
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    raise unusable(endpoint, "has a message whose content is no text")


def _tool_call(endpoint: Endpoint, call: dict[str, Any], assembly: Assembly) -> None:
    custom = call.get("type") == "custom"
    what = call.get("custom" if custom else "function")
    what = what if isinstance(what, dict) else {}
    index, id, name = call.get("index"), call.get("id"), what.get("name")
    try:
        assembly.tool_call(
            what.get("input" if custom else "arguments"),
            key=index if isinstance(index, int) else None,
            id=id if isinstance(id, str) else None,
            name=name if isinstance(name, str) else None,
            custom=custom,
        )
    except RecursionError:
        raise unusable(endpoint, "is nested too deeply") from None


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = count(usage.get("prompt_tokens")), count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    details = usage.get("prompt_tokens_details")
    cached = count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt, completion, total, cached)
