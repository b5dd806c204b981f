"""The prompt's commands, and what a line is: one of them, or a question."""

from __future__ import annotations

import difflib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """A row of /help."""

    name: str
    argument: str
    says: str


COMMANDS = (
    Command("/regenerate", "", "answer the last question anew"),
    Command("/edit", "[text]", "ask the last question in other words"),
    Command("/branches", "[N]", "list the other questions and answers, or go on with one"),
    Command("/new", "[title]", "start a new chat"),
    Command("/chats", "[N]", "list your chats, or go on with one"),
    Command("/model", "[N]", "list the LLMs, or take another"),
    Command("/system", "[text]", "show the chat's system prompt, or set it"),
    Command("/help", "", "this"),
    Command("/quit", "", "leave (or Ctrl-D)"),
)
NAMES = tuple(command.name for command in COMMANDS)
BESIDE = """\
Ctrl-C stops an answer. A backslash at the end of a line goes on in the next. A question that begins
with a slash is one with a space in front of it."""


def parse(line: str) -> tuple[str, str] | None:
    """The command and its argument; None for a question."""
    if not line.startswith("/"):
        return None
    name, _, argument = line.partition(" ")
    return name.rstrip(), argument.strip()


def help_text() -> str:
    """What /help shows."""
    rows = [(f"{command.name} {command.argument}".rstrip(), command.says) for command in COMMANDS]
    width = max(len(left) for left, _ in rows)
    return "\n".join([*(f"{left:<{width}}   {says}" for left, says in rows), "", BESIDE])


def unknown(name: str) -> str:
    """The answer to a command that there is not."""
    near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
    begun = [known for known in NAMES if known.startswith(name) and len(name) > 1]
    meant = (begun or near)[:1]
    guess = f" Did you mean {meant[0]}?" if meant else ""
    return f"There is no command {name}.{guess} /help shows them."
