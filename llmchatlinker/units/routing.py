"""Which LLM is called next: the one that was named, once more, or one of its fallbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import LLM, Attempt, Instruction, Provider, ProviderHealth
from llmchatlinker.errors import LLMChatLinkerError, NotFound
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.handling import Again, Parked
from llmchatlinker.units.ledger import Line


@dataclass(frozen=True, slots=True)
class Route:
    """The LLM that is called now, and where to go from there."""

    llm: LLM
    provider: Provider
    #: Attempts of the instruction before this one, and of these the last ones of the same LLM.
    made: int
    tries: int
    #: The provider's failures in a row, as all workers have seen them.
    failures: int
    #: The LLM to go to when this one fails for good.
    next_llm_id: int | None
    #: The LLM that was to be called instead, and why it was not: for who follows.
    instead_of: int | None = None
    reason: str | None = None

    @property
    def price(self) -> dict[str, float] | None:
        """What a million tokens cost."""
        found: dict[str, float] | None = self.llm.settings.get("price")
        return found

    @property
    def parameters(self) -> dict[str, Any]:
        """The provider's and the LLM's own, the nearer ones last."""
        found: dict[str, Any] = self.provider.settings.get("parameters") or {}
        return found | (self.llm.settings.get("parameters") or {})

    def setting(self, name: str, otherwise: Any) -> Any:
        """The LLM's setting, or else the provider's."""
        for settings in (self.llm.settings, self.provider.settings):
            if settings.get(name) is not None:
                return settings[name]
        return otherwise


def choose(
    session: Session,
    instruction: Instruction,
    llm_ids: Sequence[int],
    lines: Sequence[Line],
    mine: Attempt | None,
) -> Route | Parked:
    """The LLM whose turn it is; Parked while every provider that is left is cooling down."""
    wanted = instruction.llm_id if mine is None else mine.llm_id
    start = llm_ids.index(wanted) if wanted in llm_ids else 0
    cooling = func.extract("epoch", ProviderHealth.cooldown_until - func.clock_timestamp())
    rows = session.execute(
        select(LLM, Provider, ProviderHealth.failures, cooling)
        .join(Provider, Provider.id == LLM.provider_id)
        .outerjoin(ProviderHealth, ProviderHealth.provider_id == Provider.id)
        .where(LLM.id.in_(llm_ids[start:]))
    ).all()
    found = {row[0].id: row for row in rows}
    before = lines[-1].attempt if lines else None
    named = llm_ids[0] if before is None else before.llm_id
    waits: list[tuple[float, int]] = []
    reason = None if before is None else before.error_code
    for position in range(start, len(llm_ids)):
        row = found.get(llm_ids[position])
        if row is None:
            reason = "not_found"
            continue
        llm, provider, failures, seconds = row
        if seconds is not None and seconds > 0 and mine is None:
            waits.append((float(seconds), provider.id))
            reason = "cooldown"
            continue
        attempts = [line.attempt for line in lines]
        tries = 0
        for attempt in reversed(attempts):
            if attempt.llm_id != llm.id:
                break
            tries += 1
        return Route(
            llm=llm,
            provider=provider,
            made=len(lines),
            tries=tries,
            failures=failures or 0,
            next_llm_id=next(iter(llm_ids[position + 1 :]), None),
            instead_of=named if llm.id != named else None,
            reason=reason if llm.id != named else None,
        )
    if waits:
        soonest, provider_id = min(waits)
        return Parked("cooldown", soonest, provider_id)
    llm_id = llm_ids[start]
    raise NotFound(f"There is no LLM {llm_id}.", {"field": "llm_id", "value": llm_id})


def after_failure(
    session: Session,
    instruction: Instruction,
    route: Route,
    error: LLMChatLinkerError | None,
    tail: Tail | None,
) -> Again | Parked | None:
    """What is tried next; None: nothing, the turn has failed."""
    return None


def note_success(session: Session, route: Route, aftermath: Aftermath) -> None:
    """The provider answers."""
