"""What of a chat's history fits into an LLM's context window.

No provider's tokenizer is at hand here, so tokens are estimated. What a provider then reports to have
counted corrects the next estimate for the same LLM: ``ratio`` and ``corrected``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from llmchatlinker.errors import InvalidData
from llmchatlinker.units.tree import Told

#: Messages sent at most, whatever the window.
HISTORY_LENGTH = 1_000
#: English takes about four bytes of UTF-8 a token, other scripts fewer bytes per character but more
#: tokens; three errs on the side of sending too little.
BYTES_PER_TOKEN = 3
#: Role and separators of one message.
TOKENS_PER_MESSAGE = 8
#: An image, whatever its size: OpenAI counts 85 for one of low detail and 765 for 1024 pixels
#: square, Anthropic up to about 1600.
TOKENS_PER_IMAGE = 1_500
TOKENS_PER_SMALL_IMAGE = 100
#: Left for the answer when ``max_tokens`` does not say: a quarter of the window.
ANSWER_SHARE = 4
#: How far a report may correct us: what is further off has counted something else.
LEAST_RATIO, LARGEST_RATIO = 0.25, 4.0

Content = str | list[dict[str, Any]]


def estimate(content: Content) -> int:
    """About how many tokens a message with this content takes."""
    return TOKENS_PER_MESSAGE + sum(map(tokens, [content] if isinstance(content, str) else content))


def estimated(messages: Iterable[dict[str, Any]], tools: Any = None) -> int:
    """The same for all that is sent; to be kept beside what the provider reports."""
    described = 0 if tools is None else tokens(json.dumps(tools, ensure_ascii=False))
    return described + sum(estimate(message["content"]) for message in messages)


def ratio(pairs: Iterable[tuple[int, int]]) -> float:
    """How much more the provider counts than we do, from (estimated, reported) pairs."""
    ours = theirs = 0
    for mine, reported in pairs:
        if mine > 0 and reported > 0:
            ours += mine
            theirs += reported
    return min(max(theirs / ours, LEAST_RATIO), LARGEST_RATIO) if ours else 1.0


def corrected(tokens: int, ratio: float) -> int:
    """Our estimate as the provider would count."""
    return math.ceil(tokens * ratio)


def conversation(
    system_prompt: str | None,
    history: Sequence[Told],
    user_input: Content,
    context_window: int | None,
    max_tokens: int | None,
    *,
    tools: Any = None,
    ratio: float = 1.0,
) -> list[dict[str, Any]]:
    """System prompt, history and question as a provider takes them.

    Whole turns go, oldest first, until the rest fits. Raises InvalidData when the question alone,
    with the system prompt and the ``tools``, does not fit.
    """
    first = [{"role": "system", "content": system_prompt}] if system_prompt else []
    last = [{"role": "user", "content": user_input}]
    turns = _turns(history)
    if context_window is not None:
        room = context_window - _answer_room(context_window, max_tokens)
        room = math.floor(room / ratio) - estimated(first + last, tools)
        if room < 0:
            raise _too_long("user_input", f"does not fit into {_window(context_window)}")
        turns = _newest_that_fit(turns, room)
    return first + [message for turn in turns for message in turn] + last


def tokens(part: str | dict[str, Any]) -> int:
    """About how many tokens a text, or a part of a question, takes by itself."""
    if isinstance(part, dict):
        image = part.get("image_url")
        if image is not None:
            small = isinstance(image, dict) and image.get("detail") == "low"
            return TOKENS_PER_SMALL_IMAGE if small else TOKENS_PER_IMAGE
        part = str(part.get("text", ""))
    size = len(part) if part.isascii() else len(part.encode("utf-8"))
    return -(-size // BYTES_PER_TOKEN)


def _answer_room(context_window: int, max_tokens: int | None) -> int:
    if max_tokens is None or max_tokens < 1:  # to some servers -1 is "as many as there is room for"
        return context_window // ANSWER_SHARE
    if max_tokens >= context_window:
        raise _too_long("parameters.max_tokens", f"leaves no room in {_window(context_window)}")
    return max_tokens


def _window(context_window: int) -> str:
    return f"the LLM's context window of {context_window} tokens"


def _too_long(field: str, problem: str) -> InvalidData:
    return InvalidData(f"{field} {problem}.", {"fields": [{"field": field, "problem": problem}]})


def _turns(history: Sequence[Told]) -> list[list[dict[str, Any]]]:
    """The history in turns: a question and what follows it up to the next question.

    Not sent: what was erased or rolled back, with its whole turn where it is the question; and an
    answer of which nothing came.
    """
    turns: list[list[dict[str, Any]]] = []
    gone = False
    for message in history:
        if message.role == "user":
            gone = _is_gone(message)
        if gone or _is_gone(message):
            continue
        if message.role == "user":
            turns.append([{"role": "user", "content": message.parts or message.content}])
        elif message.is_said:
            if not turns:
                turns.append([])
            turns[-1].append({"role": message.role, "content": _answer(message)})
    return turns


def _answer(message: Told) -> str:
    """An answer as text, with what it calls: as a call of its own that may only be sent right before
    its result, in a message of the tool's; and who has the result says it in the next question."""
    calls = message.tool_calls if message.status == "complete" else None
    lines = [message.content] if message.content else []
    for call in calls or ():
        what = call.get(call.get("type", "function")) or {}
        lines.append(f"[called {what.get('name')}: {what.get('arguments', what.get('input'))}]")
    return "\n".join(lines)


def _is_gone(message: Told) -> bool:
    return bool(message.erased or message.hidden)


def _newest_that_fit(turns: list[list[dict[str, Any]]], room: int) -> list[list[dict[str, Any]]]:
    kept = 0
    for turn in reversed(turns):
        room -= estimated(turn)
        if room < 0:
            break
        kept += 1
    return turns[len(turns) - kept :]
