"""What the prompt writes. Whatever somebody else has said is cleaned on its way to the terminal."""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console

from llmchatlinker.errors import LLMChatLinkerError

DIM, BOLD, RED, YELLOW = "dim", "bold", "red", "yellow"
PREVIEW = 60

#: ESC, the one-character CSI, bells and the like; a line feed and a tab are all that a text needs.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_SURROGATES = re.compile("[\ud800-\udfff]")

#: What a person can do about an error, by its code. Where none is here, the message says it.
REMEDIES = {
    "provider_error": "See that its provider runs, then /regenerate; /model takes another LLM.",
    "provider_timeout": "/regenerate tries again; /model takes another LLM.",
    "deadline_exceeded": "/regenerate tries again.",
    "in_doubt": "/regenerate asks again.",
    "overloaded": "Try again in a moment.",
    "chat_busy": "Wait until the chat's other answer is there, or /new starts another chat.",
    "not_found": "/chats and /model list what there is.",
    "not_a_member": "/chats lists your chats.",
    "internal": "The logs of the workers say more.",
}


class Refused(Exception):
    """An envelope that says error, as an exception: a message, and the code."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code


def clean(text: str) -> str:
    """The text without what would steer a terminal."""
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))


def in_a_line(text: str, longest: int | None = None) -> str:
    """The text in one line, cut where it is longer than ``longest`` characters."""
    line = " ".join(clean(text).split())
    return line if longest is None or len(line) <= longest else line[: longest - 1].rstrip() + "…"


def plain(content: str | list[dict[str, Any]]) -> str:
    """A message's content as text: of parts the texts, and a word for the others."""
    if isinstance(content, str):
        return content
    return " ".join(part.get("text") or f"[{part.get('type', 'part')}]" for part in content)


class Screen:
    """A console that is only ever written to through ``clean``."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in_line = False

    def line(self, text: str = "", style: str | None = None) -> None:
        """A line of its own, or several."""
        self.end_line()
        self._out(clean(text) + "\n", style)

    def piece(self, text: str, style: str | None = None) -> None:
        """Some more of the current line."""
        text = clean(text)
        if text:
            self._out(text, style)
            self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """The next line begins, unless one just has."""
        if self._in_line:
            self._in_line = False
            self._out("\n", None)

    def error(self, message: str, code: str) -> None:
        """An error in one line, with what can be done about it."""
        remedy = REMEDIES.get(code, "")
        said = in_a_line(message)
        self.line(f"{said} {remedy}".rstrip(), RED)

    def failure(self, error: LLMChatLinkerError | Refused) -> None:
        """The same of what was raised."""
        self.error(error.message, error.code)

    def _out(self, text: str, style: str | None) -> None:
        self._console.out(text, end="", style=style, highlight=False)
