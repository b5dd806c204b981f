"""The ledger: a line for every call of a provider, committed before the call is made.

A redelivered instruction finds here whether somebody is at it, and whether somebody died at it.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import LLM, Attempt, Provider
from llmchatlinker.errors import Cancelled, LLMChatLinkerError
from llmchatlinker.providers.base import Usage
from llmchatlinker.telemetry.switch import metrics

TOKENS_PER_PRICE = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Line:
    """An earlier attempt of the same instruction. ``alive``: it is started, under a lease."""

    attempt: Attempt
    alive: bool


def lines(session: Session, instruction_id: uuid.UUID) -> list[Line]:
    """What the ledger has of an instruction, oldest first; the started line, if any, is locked."""
    rows = session.execute(
        select(Attempt, Attempt.lease_until > func.clock_timestamp())
        .where(Attempt.instruction_id == instruction_id)
        .order_by(Attempt.number)
        .with_for_update()
    ).all()
    return [Line(attempt, attempt.status == "started" and alive) for attempt, alive in rows]


def mark_in_doubt(attempt: Attempt) -> None:
    """Its worker has died: the provider may have generated and billed an answer, or not."""
    count_in_doubt(attempt.provider_name, attempt.llm_name)
    attempt.status = attempt.error_code = "in_doubt"
    attempt.finished_at = func.clock_timestamp()


def count_in_doubt(provider_name: str, llm_name: str) -> None:
    """Whoever finds a call in doubt counts it: its own worker can't."""
    counters = metrics()
    if counters is not None:
        counters.attempt(provider_name, llm_name, "in_doubt")


def close(
    session: Session,
    attempt_id: int,
    error: LLMChatLinkerError | None,
    usage: Usage,
    price: dict[str, float] | None,
) -> bool:
    """Write down how the call ended; False where that is written already.

    Tokens and cost are written in any case: an answer that comes too late was billed all the same.
    """
    counted: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "usage_estimated": usage.estimated,
        "cost": cost(price, usage),
    }
    status = "answered"
    if error is not None:
        status = "cancelled" if isinstance(error, Cancelled) else "failed"
    ended = {
        "status": status,
        "error_code": None if error is None else error.code,
        "http_status": None if error is None else error.details.get("http_status"),
        "finished_at": func.clock_timestamp(),
    }
    line = update(Attempt).where(Attempt.id == attempt_id)
    open_line = line.where(Attempt.status == "started").values(**ended, **counted)
    if session.scalar(_plain(open_line.returning(Attempt.id))) is not None:
        return True
    session.execute(_plain(line.where(Attempt.total_tokens.is_(None)).values(**counted)))
    return False


def _plain(statement: Any) -> Any:
    return statement.execution_options(synchronize_session=False)


#: Of so many of the provider's newest calls, those of the LLM: where many LLMs are served, an old line
#: is not worth a long search.
_COUNTED = """
    SELECT estimated_tokens, prompt_tokens
      FROM (SELECT llm_id, estimated_tokens, prompt_tokens, usage_estimated FROM attempts
             WHERE provider_id = %(provider_id)s ORDER BY started_at DESC LIMIT 200) AS newest
     WHERE llm_id = %(llm_id)s AND prompt_tokens > 0 AND estimated_tokens > 0
       AND NOT usage_estimated
     LIMIT 20
"""


def counted(rows: Rows, provider: Provider, llm: LLM) -> list[tuple[int, int]]:
    """Prompt tokens of the LLM's newest calls: as we estimated, and as the provider counted them."""
    values = {"provider_id": provider.id, "llm_id": llm.id}
    return [(int(row[0]), int(row[1])) for row in rows(values, _COUNTED)]


def cost(price: dict[str, float] | None, usage: Usage) -> Decimal | None:
    """What the tokens cost; None where the LLM has no price or the provider counted nothing."""
    if price is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if prompt is None and completion is None:
        return None
    each = {name: Decimal(str(value)) for name, value in price.items()}
    fresh, cached = prompt or 0, 0
    if "cached_prompt" in each:
        cached = min(usage.cached_prompt_tokens or 0, fresh)
        fresh -= cached
    total = fresh * each.get("prompt", Decimal(0)) + cached * each.get("cached_prompt", Decimal(0))
    total += (completion or 0) * each.get("completion", Decimal(0))
    return total / TOKENS_PER_PRICE


def usage_view(price: dict[str, float] | None, usage: Usage) -> dict[str, Any]:
    """Tokens and cost as a message shows them; null where nobody can say."""
    total = cost(price, usage)
    view: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cost": None if total is None else float(total),
    }
    return view | {"estimated": True} if usage.estimated else view
