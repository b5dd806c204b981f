"""What a ``ScriptedProvider`` says, in the shapes of the three wires, whole and in pieces.

https://platform.openai.com/docs/api-reference/chat, https://docs.anthropic.com/en/api/messages and
https://docs.anthropic.com/en/api/messages-streaming,
https://github.com/ollama/ollama/blob/main/docs/api.md. Tokens are counted as words.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

OPENAI, ANTHROPIC, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"
CHATS = (OPENAI, ANTHROPIC, OLLAMA)

_STOPS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


@dataclass(frozen=True)
class Said:
    """An answer. ``tool_calls`` in OpenAI's shape; ``more``: further fields of OpenAI's message."""

    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str = "stop"
    usage: bool = True
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def pieces(self) -> list[str]:
        """The text, word by word."""
        return words(self.text)


@dataclass(frozen=True)
class Frame:
    """A piece of a stream; ``is_token``: it has some of the answer itself."""

    data: bytes
    is_token: bool = False


def words(text: str | None) -> list[str]:
    """A text in its words, each with the white space behind it."""
    return re.findall(r"\S+\s*|\s+", text or "")


def is_streamed(path: str, body: Any) -> bool:
    """Whether the request wants pieces; Ollama's default is that it does."""
    return isinstance(body, dict) and bool(body.get("stream", path == OLLAMA))


def prompt_tokens(body: Any) -> int:
    """Words of everything that was sent."""
    return sum(len(said_in(message["content"]).split()) for message in body["messages"])


def said_in(content: Any) -> str:
    """The text of a message's content; of parts one after the other."""
    if isinstance(content, list):
        return " ".join(part["text"] for part in content if "text" in part)
    return str(content)


def whole(path: str, body: Any, said: Said) -> dict[str, Any]:
    """The document of the whole answer."""
    return {OPENAI: _openai, ANTHROPIC: _anthropic, OLLAMA: _ollama}[path](body, said)


def frames(path: str, body: Any, said: Said) -> Iterator[Frame]:
    """The same answer in pieces."""
    shapes = {OPENAI: _openai_frames, ANTHROPIC: _anthropic_frames, OLLAMA: _ollama_frames}
    return shapes[path](body, said)


def event(document: Any, name: str | None = None) -> bytes:
    """A server-sent event."""
    head = f"event: {name}\n" if name else ""
    return head.encode() + b"data: " + written(document) + b"\n\n"


def written(document: Any) -> bytes:
    """JSON as most servers write it; half an emoji can only be an escape."""
    try:
        return json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(document).encode()


# --- OpenAI -------------------------------------------------------------------------------------


def _openai(body: Any, said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text} | said.more
    if said.reasoning is not None:
        message["reasoning_content"] = said.reasoning
    if said.tool_calls:
        message["tool_calls"] = said.tool_calls
    document = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": said.finish}],
    }
    return document | ({"usage": _openai_usage(body, said)} if said.usage else {})


def _openai_usage(body: Any, said: Said) -> dict[str, int]:
    prompt, completion = prompt_tokens(body), len(said.pieces)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def openai_chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """A piece of OpenAI's stream."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "echo"}
    return event(document | {"choices": choices} | more)


def _openai_frames(body: Any, said: Said) -> Iterator[Frame]:
    yield Frame(openai_chunk({"role": "assistant", "content": ""} | said.more))
    for piece in words(said.reasoning):
        yield Frame(openai_chunk({"reasoning_content": piece}), is_token=True)
    for piece in said.pieces:
        yield Frame(openai_chunk({"content": piece}), is_token=True)
    for index, call in enumerate(said.tool_calls):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        first = call | {"index": index, "function": call["function"] | {"arguments": ""}}
        yield Frame(openai_chunk({"tool_calls": [first]}), is_token=True)
        for piece in (arguments[:half], arguments[half:]):
            rest = {"index": index, "function": {"arguments": piece}}
            yield Frame(openai_chunk({"tool_calls": [rest]}), is_token=True)
    yield Frame(openai_chunk({}, said.finish))
    if said.usage and (body.get("stream_options") or {}).get("include_usage"):
        yield Frame(event({"choices": [], "usage": _openai_usage(body, said)}))
    yield Frame(b"data: [DONE]\n\n")


# --- Anthropic ----------------------------------------------------------------------------------


def _anthropic_usage(body: Any, said: Said) -> dict[str, int]:
    return {"input_tokens": prompt_tokens(body), "output_tokens": len(said.pieces)}


def _anthropic_blocks(said: Said) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if said.reasoning is not None:
        blocks.append({"type": "thinking", "thinking": said.reasoning, "signature": "c2ln"})
    if said.text is not None:
        blocks.append({"type": "text", "text": said.text})
    for call in said.tool_calls:
        function = call["function"]
        arguments = json.loads(function["arguments"])
        block = {"type": "tool_use", "id": call["id"], "name": function["name"]}
        blocks.append(block | {"input": arguments})
    return blocks


def _anthropic(body: Any, said: Said) -> dict[str, Any]:
    document = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _anthropic_blocks(said),
        "stop_reason": _STOPS.get(said.finish, said.finish),
        "stop_sequence": None,
    }
    return document | ({"usage": _anthropic_usage(body, said)} if said.usage else {})


def _anthropic_frames(body: Any, said: Said) -> Iterator[Frame]:
    def frame(name: str, *, is_token: bool = False, **data: Any) -> Frame:
        return Frame(event({"type": name} | data, name), is_token)

    start = _anthropic(body, said) | {"content": [], "stop_reason": None}
    if said.usage:
        start["usage"] = _anthropic_usage(body, said) | {"output_tokens": 1}
    yield frame("message_start", message=start)
    yield frame("ping")
    for index, block in enumerate(_anthropic_blocks(said)):
        kind = block["type"]
        empty = {"thinking": {"thinking": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}
        yield frame("content_block_start", index=index, content_block=block | empty[kind])
        for delta in _anthropic_deltas(block):
            yield frame("content_block_delta", is_token=True, index=index, delta=delta)
        yield frame("content_block_stop", index=index)
    end = {"stop_reason": _STOPS.get(said.finish, said.finish), "stop_sequence": None}
    usage = {"usage": {"output_tokens": len(said.pieces)}} if said.usage else {}
    yield frame("message_delta", delta=end, **usage)
    yield frame("message_stop")


def _anthropic_deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "tool_use":
        text = json.dumps(block["input"])
        pieces = ("", text[: len(text) // 2], text[len(text) // 2 :])
        return [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    kind = block["type"]
    deltas: list[dict[str, Any]] = [
        {"type": f"{kind}_delta", kind: piece} for piece in words(block[kind])
    ]
    if kind == "thinking":
        deltas.append({"type": "signature_delta", "signature": "c2ln"})
    return deltas


# --- Ollama -------------------------------------------------------------------------------------


def _ollama_calls(said: Said) -> list[dict[str, Any]]:
    functions = [call["function"] for call in said.tool_calls]
    return [
        {"function": {"name": f["name"], "arguments": json.loads(f["arguments"])}}
        for f in functions
    ]


def _ollama_end(body: Any, said: Said) -> dict[str, Any]:
    counts = {"prompt_eval_count": prompt_tokens(body), "eval_count": len(said.pieces)}
    reason = "length" if said.finish == "length" else "stop"
    return {"done": True, "done_reason": reason} | (counts if said.usage else {})


def _ollama(body: Any, said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or ""}
    if said.reasoning is not None:
        message["thinking"] = said.reasoning
    if said.tool_calls:
        message["tool_calls"] = _ollama_calls(said)
    return {"model": body["model"], "message": message} | _ollama_end(body, said)


def _ollama_frames(body: Any, said: Said) -> Iterator[Frame]:
    def line(message: dict[str, Any], **more: Any) -> bytes:
        message = {"role": "assistant", "content": ""} | message
        document = {"model": body["model"], "message": message, "done": False} | more
        return written(document) + b"\n"

    for piece in words(said.reasoning):
        yield Frame(line({"thinking": piece}), is_token=True)
    for piece in said.pieces:
        yield Frame(line({"content": piece}), is_token=True)
    for call in _ollama_calls(said):
        yield Frame(line({"tool_calls": [call]}), is_token=True)
    yield Frame(line({}, **_ollama_end(body, said)))
