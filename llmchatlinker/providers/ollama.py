"""Ollama's own API: a document, or a line of JSON for each piece.

https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion
"""

from __future__ import annotations

from typing import Any

from llmchatlinker.errors import InvalidData
from llmchatlinker.providers.addresses import from_root
from llmchatlinker.providers.assembly import Assembly
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint, OnDelta, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean, count, parse
from llmchatlinker.providers.failures import cut_short, no_document, reported, unusable
from llmchatlinker.providers.http import Answer, answering, bearer, exchange
from llmchatlinker.providers.images import image, parts

CHAT = "/chat"

#: OpenAI's words for what Ollama has under ``options``.
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_completion_tokens": "num_predict",
    "max_tokens": "num_predict",
}


def address(api_endpoint: str, path: str) -> str:
    """Where ``path`` is: below ``/api``, whether the base says so or not."""
    return from_root(api_endpoint, "/api", "/api" + CHAT, path)


class Ollama:
    """The wire of kind ``ollama``."""

    def check(self, request: ChatRequest) -> None:
        """What has no counterpart can't be asked."""
        _body(request, streamed=False)

    def chat(
        self, endpoint: Endpoint, request: ChatRequest, call: Call, on_delta: OnDelta | None = None
    ) -> ChatAnswer:
        """POST …/api/chat."""
        streamed = on_delta is not None and endpoint.stream
        body = _body(request, streamed=streamed)
        assembly = Assembly(endpoint, call, on_delta, streamed=streamed)
        url = address(endpoint.url, CHAT)
        with answering(
            endpoint, "POST", url, body, call, bearer(endpoint), streamed=streamed
        ) as answer:
            if not streamed:
                document = answer.document()
                _Reading(endpoint, assembly).take(document)
            elif answer.first_byte() == b"<":
                raise no_document(endpoint, b"".join(answer.pieces()))
            else:
                _Reading(endpoint, assembly).read(answer)
            return assembly.answer()

    def models(self, endpoint: Endpoint) -> list[str]:
        """GET …/api/tags."""
        url = address(endpoint.url, "/tags")
        document = exchange(endpoint, "GET", url, None, Call(), bearer(endpoint))
        models = document.get("models") if isinstance(document, dict) else None
        if not isinstance(models, list):
            raise unusable(endpoint, "has no list of models")
        names = [item.get("name") for item in models if isinstance(item, dict)]
        return sorted(clean(name) for name in names if isinstance(name, str))


def _body(request: ChatRequest, *, streamed: bool) -> dict[str, Any]:
    return _parameters(request.parameters) | {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
        "stream": streamed,
    }


def _parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's words become Ollama's; Ollama's own go before them."""
    given = {name: value for name, value in parameters.items() if value is not None}
    options = {own: given.pop(name) for name, own in _OPTIONS.items() if name in given}
    if isinstance(options.get("stop"), str):
        options["stop"] = [options["stop"]]
    if options or "options" in given:
        given["options"] = options | (given.get("options") or {})
    wanted = given.pop("response_format", None)
    if wanted is not None:
        form = _format(wanted)
        if form is not None:
            given.setdefault("format", form)
    choice = given.pop("tool_choice", "auto")
    if choice == "none":
        given.pop("tools", None)
    elif choice != "auto":
        raise _invalid(
            "parameters.tool_choice", "must be auto or none where the provider is Ollama"
        )
    return given


def _format(wanted: Any) -> Any:
    match wanted:
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            return schema
        case {"type": "json_object"}:
            return "json"
        case {"type": "text"}:
            return None
    raise _invalid("parameters.response_format", "must be of type json_schema, json_object or text")


def _message(message: dict[str, Any]) -> dict[str, Any]:
    if isinstance(message["content"], str):
        return {"role": message["role"], "content": message["content"]}
    texts: list[str] = []
    images: list[str] = []
    for part in parts(message["content"]):
        if part["type"] == "text":
            texts.append(part["text"])
            continue
        found = image(part)
        if isinstance(found, str):
            raise _invalid(
                "user_input", "has an image by its address, and Ollama takes data:image/… alone"
            )
        images.append(found[1])
    sent = {"role": message["role"], "content": "\n".join(texts)}
    return sent | ({"images": images} if images else {})


class _Reading:
    """What is made of a document, or of a stream of them: they have the same fields."""

    def __init__(self, endpoint: Endpoint, assembly: Assembly) -> None:
        self._endpoint = endpoint
        self._assembly = assembly
        self._calls = 0

    def read(self, answer: Answer) -> None:
        """A stream, to its end."""
        with self._assembly.to_its_end():
            for line, closed in answer.lines():
                try:
                    document = parse(line)
                except (ValueError, RecursionError):
                    if not closed:
                        raise cut_short(self._endpoint) from None
                    raise unusable(self._endpoint, "has a line that is no JSON") from None
                self.take(document)
                if self._assembly.complete:
                    answer.rest()
                    return

    def take(self, document: Any) -> None:
        """A document: the whole answer, a piece of one, or its end."""
        if not isinstance(document, dict):
            raise unusable(self._endpoint, "is no object")
        if document.get("error"):
            raise reported(self._endpoint, document)
        done = document.get("done") is True
        message = document.get("message")
        if isinstance(message, dict):
            self._say(message)
        elif not done:
            raise unusable(self._endpoint, "has no message")
        if done:
            self._assembly.counted(_usage(document))
            reason = document.get("done_reason") or "stop"
            self._assembly.finish("tool_calls" if self._calls and reason == "stop" else reason)
            self._assembly.complete = True

    def _say(self, message: dict[str, Any]) -> None:
        if isinstance(message.get("thinking"), str):
            self._assembly.reasoning(message["thinking"])
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise unusable(self._endpoint, "has a message whose content is no text")
        self._assembly.text(content or "")
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("name"), str):
                self._call_tool(call, function)

    def _call_tool(self, call: dict[str, Any], function: dict[str, Any]) -> None:
        """A whole call: here they do not come in pieces, and older versions give them no ids."""
        id = call.get("id")
        arguments = function.get("arguments")
        try:
            self._assembly.tool_call(
                {} if arguments is None else arguments,
                key=self._calls,
                id=id if isinstance(id, str) and id else f"call_{self._calls}",
                name=function["name"],
            )
        except RecursionError:
            raise unusable(self._endpoint, "is nested too deeply") from None
        self._calls += 1


def _usage(document: dict[str, Any]) -> Usage:
    prompt, completion = count(document.get("prompt_eval_count")), count(document.get("eval_count"))
    total = None if prompt is None or completion is None else prompt + completion
    return Usage(prompt, completion, total)


def _invalid(field: str, problem: str) -> InvalidData:
    return InvalidData(f"{field} {problem}.", {"fields": [{"field": field, "problem": problem}]})
