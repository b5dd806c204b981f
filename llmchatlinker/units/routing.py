"""Which LLM is called next: the one that was named, once more, or one of its fallbacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from llmchatlinker.db.models import LLM, Attempt, Instruction, Provider, ProviderHealth
from llmchatlinker.errors import LLMChatLinkerError, NotFound, ProviderError, ProviderTimeout
from llmchatlinker.providers.retrying import backoff, is_retryable, retry_after
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.telemetry.switch import metrics
from llmchatlinker.units.handling import Again, Parked
from llmchatlinker.units.ledger import Line

#: Seconds: a shorter wait may hold a worker's slot, a longer one is parked.
SLOT_WAIT = 2.0
#: HTTP statuses of a request that no other LLM would take either.
WRONG_EVERYWHERE = (400, 413, 422)
#: HTTP statuses whose Retry-After is meant for everybody who calls the provider.
MEANT_FOR_ALL = (429, 503)


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

    @property
    def retries(self) -> int:
        """How often a failed call is made again."""
        return int(self.setting("retries", get_settings().provider_retries))

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
    """What is tried next; None: nothing, the turn has failed.

    Nothing once a delta may have been shown, or when it is not the provider that failed.
    """
    if not isinstance(error, ProviderError):
        return None
    if is_retryable(error) or isinstance(error, ProviderTimeout):
        _note_failure(session, route, error)
    if tail is None or tail.stored_deltas:
        return None
    if is_retryable(error) and route.tries < route.retries:
        seconds = max(retry_after(error) or 0.0, backoff(route.tries + 1))
        elsewhere = route.next_llm_id is not None and seconds >= SLOT_WAIT
        if not elsewhere and seconds < _seconds_left(session, instruction):
            instruction.llm_id = route.llm.id
            if seconds < SLOT_WAIT:
                return Again(seconds)
            return Parked("retry", seconds, route.provider.id)
    if route.next_llm_id is not None and error.details.get("http_status") not in WRONG_EVERYWHERE:
        instruction.llm_id = route.next_llm_id
        return Again(0.0)
    return None


def _seconds_left(session: Session, instruction: Instruction) -> float:
    left = func.extract("epoch", Instruction.deadline_at - func.clock_timestamp())
    return float(session.scalar(select(left).where(Instruction.id == instruction.id)) or 0.0)


#: Failures while it cools down are of calls that were made before: they say nothing new.
_FAILED = """
    INSERT INTO provider_health AS h (provider_id, failures, cooldown_until)
    SELECT id, 1, greatest(clock_timestamp() + make_interval(secs => %(wanted)s),
                           CASE WHEN %(after)s <= 1
                                THEN clock_timestamp() + make_interval(secs => %(first)s) END)
      FROM providers WHERE id = %(provider_id)s
    ON CONFLICT (provider_id) DO UPDATE
       SET failures = h.failures + 1,
           cooldown_until = greatest(clock_timestamp() + make_interval(secs => %(wanted)s),
               CASE WHEN h.failures + 1 < %(after)s THEN h.cooldown_until
               ELSE clock_timestamp() + make_interval(secs => least(%(longest)s,
                    %(first)s * power(2, least(h.failures + 1 - %(after)s, 30)))) END)
     WHERE h.cooldown_until IS NULL OR h.cooldown_until <= clock_timestamp()
    RETURNING h.cooldown_until > clock_timestamp()
"""

#: But a cooldown may turn out to be shorter than what the provider wants.
_PROLONG = """
    UPDATE provider_health
       SET cooldown_until = greatest(cooldown_until,
                                     clock_timestamp() + make_interval(secs => %(wanted)s))
     WHERE provider_id = %(provider_id)s
"""


def _note_failure(session: Session, route: Route, error: ProviderError) -> None:
    """The provider has failed; after some failures in a row, or where it asks for that, nobody calls
    it for a while."""
    settings = get_settings()
    to_all = error.details.get("http_status") in MEANT_FOR_ALL
    values = {
        "provider_id": route.provider.id,
        "after": settings.cooldown_failures,
        "first": settings.cooldown,
        "longest": settings.cooldown_max,
        "wanted": retry_after(error) if to_all else None,
    }
    counters = metrics()
    connection = session.connection()
    cools_down = connection.exec_driver_sql(_FAILED, values).scalar()
    if values["wanted"] is not None:
        connection.exec_driver_sql(_PROLONG, values)
    if cools_down and counters is not None:
        counters.cooldown(route.provider.name)


def note_success(session: Session, route: Route) -> bool:
    """The provider answers; returns whether it had failed before.

    Not while it cools down: then this call is an older one, and the provider may have asked for peace.
    """
    if route.failures == 0:
        return False
    until = ProviderHealth.cooldown_until
    recovered = session.execute(
        update(ProviderHealth)
        .where(ProviderHealth.provider_id == route.provider.id)
        .where(until.is_(None) | (until <= func.clock_timestamp()))
        .values(failures=0, cooldown_until=None)
        .returning(ProviderHealth.provider_id)
        .execution_options(synchronize_session=False)
    )
    return recovered.first() is not None
