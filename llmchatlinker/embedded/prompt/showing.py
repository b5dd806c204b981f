"""The events of a response as they are written onto a screen, by the prompt and by `watch`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmchatlinker.embedded.prompt.screen import BOLD, DIM, RED, Screen
from llmchatlinker.streaming.events import (
    CANCELLED,
    CREATED,
    DELTA,
    FAILED,
    FALLBACK,
    SNAPSHOT,
)
from llmchatlinker.streaming.follower import ResponseEvent


@dataclass(slots=True)
class Answer:
    """What came of it. ``question_id``: None where it never began."""

    question_id: int | None = None
    message_id: int | None = None
    #: Ctrl-C was pressed.
    stopped: bool = False


class Showing:
    """Shows one answer, event by event."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.answer = Answer()
        self._kind: str | None = None
        self._text = ""

    def take(self, event: ResponseEvent) -> None:
        """Show one more event."""
        data = event.data
        if event.type == CREATED:
            self._created(data)
        elif event.type == DELTA:
            self._delta(str(data["kind"]), str(data["text"]), data.get("name"))
        elif event.type == SNAPSHOT:
            self._created(data)
            self._rest(event.text)
        elif event.type == FALLBACK:
            self._note(f"({data['llm_name']} instead: {data['reason']})")
        elif event.is_last:
            self._ended(event.type, data)

    def _created(self, data: dict[str, Any]) -> None:
        if self.answer.message_id is None and data.get("message_id") is not None:
            self.answer.question_id = data["parent_message_id"]
            self.answer.message_id = data["message_id"]
            self._screen.piece(f"{data.get('llm_name') or 'LLM'}> ", BOLD)

    def _delta(self, kind: str, text: str, name: str | None) -> None:
        if self._kind is not None and (kind != self._kind or name):
            self._screen.end_line()
        self._kind = kind
        if kind == "text":
            self._text += text
            self._screen.piece(text)
        else:
            self._screen.piece(f"calls {name} " if name else "", DIM)
            self._screen.piece(text, DIM)

    def _rest(self, text: str) -> None:
        """Of a whole text what was not shown yet."""
        if not text.startswith(self._text):
            self._screen.end_line()
            self._text = ""
        if text != self._text:
            self._delta("text", text[len(self._text) :], None)

    def _ended(self, kind: str, data: dict[str, Any]) -> None:
        error = data.get("error")
        if kind == CANCELLED:
            reason = ((error or {}).get("details") or {}).get("reason", "cancelled")
            self._note("(stopped)" if reason == "cancelled" else f"({reason} from elsewhere)")
        elif kind == FAILED and error is not None:
            self._screen.error(error["message"], error["code"])
        elif kind == FAILED:
            self._screen.line("(it broke off here, and nobody knows why)", RED)
        elif data.get("finish_reason") == "length":
            self._note("(cut off: it has reached the longest answer that the LLM gives)")
        elif self._kind is None:
            self._note("(an empty answer)")

    def _note(self, text: str) -> None:
        self._screen.line(text, DIM)
