"""A conversation, with parameters in OpenAI's words, as Anthropic's Messages API takes it.

https://docs.anthropic.com/en/api/messages. What has Anthropic's own shape already is left as it is.
"""

from __future__ import annotations

from typing import Any

from llmchatlinker.errors import InvalidData
from llmchatlinker.providers.base import ChatRequest
from llmchatlinker.providers.images import image, parts

#: Anthropic requires a limit; this one goes where no parameter says another.
MAX_TOKENS = 4_096

#: There is nothing like it here, and an answer is none the worse without it.
_LEFT_OUT = ("seed",)
_TOOL_CHOICES = {"auto": "auto", "required": "any", "none": "none"}


def body(request: ChatRequest, *, streamed: bool) -> dict[str, Any]:
    """The request's document. Raises InvalidData for a parameter that has no counterpart."""
    given = {k: v for k, v in request.parameters.items() if k not in _LEFT_OUT and v is not None}
    limit = given.pop("max_completion_tokens", None)
    given.setdefault("max_tokens", MAX_TOKENS if limit is None else limit)
    if "stop" in given:
        stop = given.pop("stop")
        given.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    if isinstance(given.get("tools"), list):
        given["tools"] = [_tool(tool) for tool in given["tools"]]
    _choose_tool(given)
    _format(given)
    system, messages = _messages(request.messages)
    if system:
        given["system"] = system
    return given | {"model": request.model, "messages": messages, "stream": streamed}


def _messages(messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The system prompt, and the rest with what one side said in a row put into one message."""
    system: list[str] = []
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message["role"] == "system":
            system.append(message["content"])
            continue
        blocks = [_block(part) for part in parts(message["content"])]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == message["role"]:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": message["role"], "content": blocks})
    return "\n\n".join(system), turns


def _block(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] != "image_url":
        return part
    found = image(part)
    if isinstance(found, str):
        return {"type": "image", "source": {"type": "url", "url": found}}
    media_type, data = found
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": media_type, "data": data},
    }


def _tool(tool: Any) -> Any:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        return tool
    schema = function.get("parameters") or {"type": "object", "properties": {}}
    kept = {k: v for k, v in function.items() if k in ("name", "description", "strict")}
    return kept | {"input_schema": schema}


def _choose_tool(given: dict[str, Any]) -> None:
    choice = given.get("tool_choice")
    if isinstance(choice, str) and choice in _TOOL_CHOICES:
        given["tool_choice"] = {"type": _TOOL_CHOICES[choice]}
    elif isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        given["tool_choice"] = {"type": "tool", "name": choice["function"].get("name")}
    if given.pop("parallel_tool_calls", True) is False and given.get("tools"):
        choice = given.setdefault("tool_choice", {"type": "auto"})
        if isinstance(choice, dict) and choice.get("type") != "none":
            given["tool_choice"] = choice | {"disable_parallel_tool_use": True}


def _format(given: dict[str, Any]) -> None:
    wanted = given.pop("response_format", None)
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if kind != "json_schema" or not isinstance(described, dict):
        field = "parameters.response_format"
        problem = "must be of type json_schema or text where the provider is Anthropic's"
        raise InvalidData(f"{field} {problem}.", {"fields": [{"field": field, "problem": problem}]})
    form = {"type": "json_schema", "schema": described.get("schema", {})}
    given["output_config"] = {"format": form} | (given.get("output_config") or {})
