"""OpenAI's chat completions, as OpenAI, vLLM, llama.cpp, Ollama, LM Studio and many more speak it.

The shapes are those of https://platform.openai.com/docs/api-reference/chat; ``reasoning_content`` is
what vLLM and DeepSeek call the text that OpenAI does not show.
"""

from __future__ import annotations

from typing import Any

from llmchatlinker.errors import ProviderError
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint, OnDelta, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.http import clean, exchange

CHAT = "/chat/completions"
#: Levels of lists and objects in tool calls.
NESTING = 100


def base_url(api_endpoint: str) -> str:
    """The address up to and including ``/v1``, from a base or from the full URL of an endpoint."""
    url = api_endpoint.rstrip("/")
    url = url.removesuffix(CHAT).rstrip("/")
    _, _, rest = url.partition("://")
    return url if "/" in rest else url + "/v1"


class OpenAI:
    """The wire of kind ``openai``."""

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """POST …/chat/completions."""
        body = request.parameters | {
            "model": request.model,
            "messages": request.messages,
            "stream": False,
        }
        return _answer(
            endpoint, exchange(endpoint, "POST", base_url(endpoint.url) + CHAT, body, call)
        )

    def models(self, endpoint: Endpoint) -> list[str]:
        """GET …/models."""
        document = exchange(endpoint, "GET", base_url(endpoint.url) + "/models")
        models = document.get("data") if isinstance(document, dict) else None
        if not isinstance(models, list):
            raise _unusable(endpoint, "has no list of models")
        names = [item.get("id") for item in models if isinstance(item, dict)]
        return sorted(clean(name) for name in names if isinstance(name, str))


def _answer(endpoint: Endpoint, document: Any) -> ChatAnswer:
    choices = document.get("choices") if isinstance(document, dict) else None
    if not isinstance(choices, list) or not choices:
        raise _unusable(endpoint, "has no choices")
    choice = choices[0]
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        raise _unusable(endpoint, "has a choice without a message")
    finish_reason = choice.get("finish_reason")
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return ChatAnswer(
        content=_text(endpoint, message.get("content")),
        finish_reason=clean(finish_reason) if isinstance(finish_reason, str) else None,
        tool_calls=_tool_calls(endpoint, message.get("tool_calls")),
        reasoning=clean(reasoning) if isinstance(reasoning, str) else None,
        usage=_usage(document.get("usage")),
    )


def _text(endpoint: Endpoint, content: Any) -> str:
    if content is None:  # a refusal, or nothing but tool calls
        return ""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return clean("".join(part for part in parts if isinstance(part, str)))
    raise _unusable(endpoint, "has a message whose content is no text")


def _tool_calls(endpoint: Endpoint, calls: Any) -> list[Any] | None:
    if not isinstance(calls, list) or not calls:
        return None
    cleaned: list[Any] = _clean_all(endpoint, calls)
    return cleaned


def _usage(usage: Any) -> Usage:
    if not isinstance(usage, dict):
        return Usage()
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if total is None and prompt is not None and completion is not None:
        total = prompt + completion
    return Usage(prompt, completion, total)


def _count(value: Any) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31
    return value if is_count else None


def _clean_all(endpoint: Endpoint, value: Any, depth: int = 0) -> Any:
    if depth > NESTING:
        raise _unusable(endpoint, "is nested too deeply")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_clean_all(endpoint, item, depth + 1) for item in value]
    if isinstance(value, dict):
        pairs = value.items()
        return {clean(str(key)): _clean_all(endpoint, item, depth + 1) for key, item in pairs}
    return value


def _unusable(endpoint: Endpoint, why: str) -> ProviderError:
    return ProviderError(
        f"Provider {endpoint.name!r} answered with a document that {why}.",
        {"provider": endpoint.name, "http_status": 200},
    )
