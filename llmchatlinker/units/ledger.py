"""The ledger: a line for every call of a provider, committed before the call is made.

A redelivered instruction finds here whether somebody is at it, and whether somebody died at it.
"""

from __future__ import annotations

from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import LLM, Attempt, Instruction, Provider
from llmchatlinker.errors import InDoubt, LLMChatLinkerError
from llmchatlinker.leases import lease_end
from llmchatlinker.providers.base import ChatAnswer
from llmchatlinker.units.handling import Held, Refused

TOKENS_PER_PRICE = Decimal(1_000_000)


def earlier(session: Session, instruction: Instruction, worker: str) -> Held | Refused | None:
    """What an earlier delivery of this instruction left in the ledger.

    Nothing, where that was this very delivery: the answer of its commit was lost.
    """
    row = session.execute(
        select(Attempt, Attempt.lease_until > func.clock_timestamp())
        .where(Attempt.instruction_id == instruction.id, Attempt.status == "started")
        .with_for_update()
    ).first()
    if row is None:
        return None
    attempt, alive = row
    if attempt.worker == worker:
        return None
    if alive:
        return Held()
    attempt.status = "in_doubt"
    attempt.finished_at = func.clock_timestamp()
    error = InDoubt(
        f"The worker that called {attempt.provider_name!r} died before it could store the answer: "
        "the provider may have generated and billed one. Nothing was added to the chat.",
        {"attempt": attempt.number, "provider": attempt.provider_name},
    )
    attempt.error_code = error.code
    return Refused(error)


def start(
    session: Session,
    instruction: Instruction,
    provider: Provider,
    llm: LLM,
    user_id: int | None,
    worker: str,
) -> int:
    """Open the line of the call that is about to be made, under a lease; returns its id."""
    mine = session.scalar(
        select(Attempt.id).where(
            Attempt.instruction_id == instruction.id,
            Attempt.status == "started",
            Attempt.worker == worker,
        )
    )
    if mine is not None:
        return mine
    made = session.scalar(select(func.count()).where(Attempt.instruction_id == instruction.id))
    attempt = Attempt(
        instruction_id=instruction.id,
        number=(made or 0) + 1,
        user_id=user_id,
        llm_id=llm.id,
        provider_name=provider.name,
        llm_name=llm.llm_name,
        worker=worker,
        lease_until=lease_end(),
    )
    session.add(attempt)
    session.flush()
    return attempt.id


def close(
    session: Session,
    attempt_id: int,
    answer: ChatAnswer | LLMChatLinkerError,
    price: dict[str, float] | None,
) -> None:
    """Write down how the call ended, unless that is written already."""
    attempt = session.get(Attempt, attempt_id, with_for_update=True)
    if attempt is None or attempt.status != "started":
        return
    attempt.finished_at = func.clock_timestamp()
    if isinstance(answer, LLMChatLinkerError):
        attempt.status = "failed"
        attempt.error_code = answer.code
        attempt.http_status = answer.details.get("http_status")
        return
    attempt.status = "answered"
    attempt.prompt_tokens = answer.usage.prompt_tokens
    attempt.completion_tokens = answer.usage.completion_tokens
    attempt.total_tokens = answer.usage.total_tokens
    attempt.cost = cost(price, answer)


def cost(price: dict[str, float] | None, answer: ChatAnswer) -> Decimal | None:
    """What the answer cost; None where the LLM has no price or the provider counted nothing."""
    if price is None:
        return None
    prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    if prompt is None and completion is None:
        return None
    each = {name: Decimal(str(value)) for name, value in price.items()}
    total = (prompt or 0) * each.get("prompt", Decimal(0))
    total += (completion or 0) * each.get("completion", Decimal(0))
    return total / TOKENS_PER_PRICE
