"""What a response's events look like: in PostgreSQL, on the broker, and to who follows.

An event is a JSON object with a ``type``; the rest of it is its data. Its number is its place in the
stream, from 1, and is not written into it. docs/streaming.md describes each type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # its package imports requests, which who only follows has no need of
    from llmchatlinker.providers.base import Delta

Event = dict[str, Any]

CREATED = "response.created"
DELTA = "response.delta"
USAGE = "response.usage"
FALLBACK = "response.fallback"
SNAPSHOT = "response.snapshot"
COMPLETED = "response.completed"
CANCELLED = "response.cancelled"
FAILED = "response.failed"
#: One of these is a stream's last event.
ENDINGS = (COMPLETED, CANCELLED, FAILED)

#: How a message's status ends its stream.
_ENDING_OF = {"complete": COMPLETED, "cancelled": CANCELLED}
#: What the last event shows of the message; its text has been in the deltas.
_SHOWN = (
    "message_id",
    "parent_message_id",
    "chat_id",
    "llm_id",
    "status",
    "finish_reason",
    "usage",
)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def delta_event(delta: Delta) -> Event:
    """The event of a delta."""
    event: Event = {"type": DELTA, "kind": delta.kind, "text": delta.text}
    if delta.kind == "tool_call":
        event["index"] = delta.index or 0
        if delta.id is not None:
            event["id"] = delta.id
        if delta.name is not None:
            event["name"] = delta.name
        if delta.custom:
            event["custom"] = True
    return event


def ending(envelope: Mapping[str, Any]) -> Event:
    """The last event of the instruction with this outcome; the same from everybody who makes it."""
    error = envelope.get("error")
    response = (envelope.get("data") or {}).get("llm_response") or {}
    event: Event = {"type": FAILED}
    if error is None:
        event["type"] = _ENDING_OF.get(response.get("status", "complete"), FAILED)
    elif error["code"] == "cancelled":
        event["type"] = CANCELLED
    event |= {name: response[name] for name in _SHOWN if name in response}
    if error is not None:
        event["error"] = {"message": envelope["message"], **error}
    return event


def as_json(events: Sequence[Event]) -> str:
    """A list of events as JSON text that PostgreSQL can keep."""
    text = json.dumps(events, ensure_ascii=False, separators=(",", ":"))
    if "\\u0000" in text or _UNSTORABLE.search(text):
        text = json.dumps(_storable(list(events)), ensure_ascii=False, separators=(",", ":"))
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return [_storable(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass(slots=True)
class Partial:
    """A response put together from its events, as far as they go."""

    #: The number of the last event that is in it.
    last: int = 0
    _text: list[str] = field(default_factory=list, repr=False)
    _reasoning: list[str] = field(default_factory=list, repr=False)
    _calls: dict[int, dict[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def content(self) -> str:
        """The text."""
        return "".join(self._text)

    @property
    def reasoning(self) -> str | None:
        """The reasoning; None where there is none."""
        return "".join(self._reasoning) or None

    @property
    def tool_calls(self) -> list[dict[str, Any]] | None:
        """The tool calls as they are in a message; None where there is none."""
        return [_whole(self._calls[index]) for index in sorted(self._calls)] or None

    @property
    def is_empty(self) -> bool:
        """No delta was in it."""
        return not (self._text or self._reasoning or self._calls)

    def add(self, events: Iterable[Event]) -> None:
        """Go on with these events, which are the next ones."""
        for event in events:
            self.last += 1
            if event["type"] == DELTA:
                self._add(event)

    def _add(self, event: Event) -> None:
        if event["kind"] == "text":
            self._text.append(event["text"])
        elif event["kind"] == "reasoning":
            self._reasoning.append(event["text"])
        else:
            call = self._calls.setdefault(
                event.get("index") or 0, {"id": None, "name": None, "custom": False, "pieces": []}
            )
            call["id"] = call["id"] or event.get("id")
            call["name"] = call["name"] or event.get("name")
            call["custom"] = call["custom"] or event.get("custom", False)
            call["pieces"].append(event["text"])


def _whole(call: dict[str, Any]) -> dict[str, Any]:
    text = "".join(call["pieces"])
    if call["custom"]:
        what = {"name": call["name"], "input": text}
        return {"id": call["id"], "type": "custom", "custom": what}
    what = {"name": call["name"], "arguments": text}
    return {"id": call["id"], "type": "function", "function": what}
