"""What waits until a moment, and is due: a retry, a provider's cooldown, room below a limit.

An end lets go on who waits for it (``limits.py``). What the clock lets go on, and what an end has
overlooked, the sweeper and the alarms of ``waiting.py`` ask for here.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.models import LLM, Provider
from llmchatlinker.settings import get_settings
from llmchatlinker.turns import Aftermath, Released
from llmchatlinker.units import limits
from llmchatlinker.units.limits import Limit

_DUE_RETRIES = """
    UPDATE instructions SET state = 'decoded', wait_reason = NULL, published_at = now()
     WHERE id IN (SELECT id FROM instructions
                   WHERE not_before <= clock_timestamp() AND state = 'waiting'
                     AND wait_reason = 'retry'
                   ORDER BY not_before LIMIT %(batch)s FOR UPDATE SKIP LOCKED)
    RETURNING CAST(id AS text), type
"""

#: One for each provider: it finds out whether the others may follow.
_DUE_PROBES = """
    SELECT DISTINCT provider_id FROM instructions i
     WHERE not_before <= clock_timestamp() AND state = 'waiting' AND wait_reason = 'cooldown'
       AND NOT EXISTS (SELECT FROM provider_health h WHERE h.provider_id = i.provider_id
                          AND h.cooldown_until > clock_timestamp())
"""

_WAITED_FOR = """
    SELECT DISTINCT wait_reason, provider_id,
           CASE WHEN wait_reason IN ('llm', 'llm_rate') THEN llm_id END,
           CASE WHEN wait_reason IN ('user', 'user_rate') THEN user_ids[1] END
      FROM instructions
     WHERE not_before <= clock_timestamp() AND state = 'waiting'
       AND wait_reason = ANY (CAST(%(reasons)s AS text[]))
"""


def release_due(session: Session, *, slots: bool = False) -> Aftermath:
    """Let go on what is due by the clock; ``slots``: also what was overlooked when calls ended."""
    aftermath = Aftermath()
    rows = driver.within(session)
    retries = rows({"batch": limits.BATCH}, _DUE_RETRIES)
    aftermath.released += [Released(UUID(id), type) for id, type in retries]
    for (provider_id,) in rows({}, _DUE_PROBES):
        aftermath.released += limits.after_cooldown(session, provider_id, 1)
    reasons = [*limits.RATES, *(("user", "provider", "llm") if slots else ())]
    for reason, *ids in rows({"reasons": reasons}, _WAITED_FOR):
        limit = _limit_of(session, reason, *ids)
        if limit is None:  # it was lifted, or what it was set for is gone
            gone = Limit(reason, limits.BATCH, *ids)
            aftermath.released += gone.let_go(rows, limits.BATCH)
        else:
            limits.let_those_go_on(rows, limit, aftermath)
    return aftermath


def _limit_of(
    session: Session, reason: str, provider_id: int | None, llm_id: int | None, user_id: int | None
) -> Limit | None:
    name = "requests_per_minute" if reason in limits.RATES else "max_concurrency"
    if reason in ("user", "user_rate"):
        name = f"user_{'concurrency' if reason == 'user' else name}"
        if provider_id is None:
            most = getattr(get_settings(), name)
            return Limit(reason, most, user_id=user_id) if most > 0 else None
    holder = session.get(LLM, llm_id) if llm_id is not None else session.get(Provider, provider_id)
    most = None if holder is None else holder.settings.get(name)
    return None if most is None else Limit(reason, most, provider_id, llm_id, user_id)
