"""What is told of a call of an LLM, and of what befalls providers."""

from __future__ import annotations

from typing import Any

from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.telemetry.switch import metrics
from llmchatlinker.units.calling import Performed, Turn
from llmchatlinker.units.ledger import cost


def observe_call(work: Any, answer: Any) -> None:
    """A provider was called; work that is no turn has no line in the ledger, and none here."""
    if not isinstance(work, Turn):
        return
    notes.attempt = work.route.made + 1
    counters = metrics()
    if counters is None:
        return
    done = answer if isinstance(answer, Performed) else None
    error: LLMChatLinkerError | None = answer if done is None else done.error
    route = work.route
    counters.attempt(
        route.provider.name,
        route.llm.llm_name,
        "answered" if error is None else error.code,
        seconds=None if done is None else done.seconds,
        first_token=None if done is None else done.first_token,
        usage=None if done is None else done.usage,
        cost=None if done is None else cost(route.price, done.usage),
        http_status=None if error is None else error.details.get("http_status"),
        retry=route.tries > 0,
        fallback=route.instead_of is not None,
    )
