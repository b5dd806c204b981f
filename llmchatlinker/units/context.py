"""What of a chat's history fits into an LLM's context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmchatlinker.db.models import Message
from llmchatlinker.errors import InvalidData

#: Messages sent at most, whatever the window.
HISTORY_LENGTH = 1_000
#: English takes about four bytes of UTF-8 a token, other scripts fewer bytes per character but more
#: tokens; three errs on the side of sending too little.
BYTES_PER_TOKEN = 3
#: Role and separators of one message.
TOKENS_PER_MESSAGE = 8
#: Left for the answer when ``max_tokens`` does not say: a quarter of the window.
ANSWER_SHARE = 4


def estimate(text: str) -> int:
    """About how many tokens a text takes."""
    return TOKENS_PER_MESSAGE + -(-len(text.encode("utf-8")) // BYTES_PER_TOKEN)


def conversation(
    system_prompt: str | None,
    history: Sequence[Message],
    user_input: str,
    context_window: int | None,
    max_tokens: int | None,
) -> list[dict[str, Any]]:
    """System prompt, history and question as a provider takes them.

    Whole turns go, oldest first, until the rest fits. Raises InvalidData when the question alone
    does not fit.
    """
    turns = _turns(history)
    if context_window is not None:
        room = context_window - (max_tokens or context_window // ANSWER_SHARE)
        room -= estimate(user_input) + (estimate(system_prompt) if system_prompt else 0)
        if room < 0:
            problem = f"does not fit into the LLM's context window of {context_window} tokens"
            raise InvalidData(
                f"user_input {problem}.", {"fields": [{"field": "user_input", "problem": problem}]}
            )
        turns = _newest_that_fit(turns, room)
    messages: list[dict[str, Any]] = []
    if system_prompt:
        messages.append({"role": "system", "content": system_prompt})
    messages += [{"role": m.role, "content": m.content} for turn in turns for m in turn]
    messages.append({"role": "user", "content": user_input})
    return messages


def _turns(history: Sequence[Message]) -> list[list[Message]]:
    """The history in turns: a question and what follows it up to the next question."""
    turns: list[list[Message]] = []
    for message in history:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return [turn for turn in turns if not any(message.erased for message in turn)]


def _newest_that_fit(turns: list[list[Message]], room: int) -> list[list[Message]]:
    kept = 0
    for turn in reversed(turns):
        room -= sum(estimate(message.content) for message in turn)
        if room < 0:
            break
        kept += 1
    return turns[len(turns) - kept :]
