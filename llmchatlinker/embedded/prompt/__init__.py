"""The chat prompt of `make run`: a person, or lines from a pipe, a chat that lasts, and an LLM."""

from __future__ import annotations

from contextlib import nullcontext

from rich.console import Console

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.prompt.foreground import alone
from llmchatlinker.embedded.prompt.places import find_place
from llmchatlinker.embedded.prompt.prompt import Prompt
from llmchatlinker.embedded.prompt.reading import Lines
from llmchatlinker.embedded.prompt.screen import Refused, Screen
from llmchatlinker.embedded.quickstart import Target
from llmchatlinker.errors import StartFailed

__all__ = ["chat"]

REMEDY = "If it stays so: llmchatlinker reset, which removes the chats, too."


def chat(console: Console, lines: Lines, target: Target) -> None:
    """Chat with an LLM in the system that is configured, until the lines end. Raises StartFailed."""
    client = LLMChatLinkerClient()
    try:
        place = find_place(client, target)
    except Refused as error:
        raise StartFailed(f"The chat can't begin: {error.message}", {"remedy": REMEDY}) from None
    with alone() if lines.interactive else nullcontext():
        Prompt(Screen(console), lines, client, place).run()
