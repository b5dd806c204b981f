"""How many calls are made at once and per minute: of a provider, of an LLM, for a user.

The ledger is what is counted, under an advisory lock for each limit that is set, so that the limits
hold across all workers. What exceeds one is parked; the end of a call lets go on as many as there is
room for: whose user has the fewest calls under way first, then whose user was served longest ago, then
the earliest. So one user with five hundred turns delays nobody else. Who has just come goes behind those
who wait.

Who parks or may park has a limit's lock alone. Calls that end share it: they hinder one another in
nothing, and whoever parks meanwhile is either seen by them or sees their end. Calls far below the limit
share it too, and each takes one of the limit's ``stripes``, which are further locks, before it counts:
whatever that count does not see has one of the others, so it is out by less than there are stripes. Far
below the limit not every call counts: there may be hundreds to count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import LLM, Instruction, Provider
from llmchatlinker.settings import get_settings
from llmchatlinker.turns import Aftermath, Released
from llmchatlinker.units.handling import Parked
from llmchatlinker.units.routing import Route

#: Rows that one look lets go on at most, so that its transaction stays short.
BATCH = 500
#: Reasons to wait that count calls of the last minute, and not those under way.
RATES = ("rate", "llm_rate", "user_rate")
#: All of them, in the order in which everybody takes their locks.
REASONS = ("user", "user_rate", "provider", "rate", "llm", "llm_rate")
#: Calls that may be opened at the same moment without a limit's lock: at least, and at most, since each
#: holds a connection. In between it is a share of the limit, near which calls are opened one by one.
STRIPES, MOST_STRIPES, STRIPE_SHARE = 4, 64, 8

_LOCK = "SELECT pg_advisory_xact_lock{shared}(hashtextextended(%(key)s, 0))"

_UNDER_WAY = """
    SELECT (SELECT count(*) FROM attempts
             WHERE status = 'started' AND lease_until > clock_timestamp() AND {calls}),
           EXISTS (SELECT FROM instructions WHERE {waiting}),
           0.0
"""

#: ``clock_timestamp()`` changes within a statement, so no index is searched for it: every call that
#: the ledger has of a user would be read, or of everybody. ``now()``, when the transaction began, is no
#: later, and leaves the last minute to be looked at one by one.
_LAST_MINUTE = """
    SELECT (SELECT count(*) FROM attempts
             WHERE started_at > now() - interval '60 seconds'
               AND started_at > clock_timestamp() - interval '60 seconds' AND {calls}),
           EXISTS (SELECT FROM instructions WHERE {waiting}),
           (SELECT extract(epoch FROM started_at + interval '60 seconds' - clock_timestamp())
              FROM attempts
             WHERE started_at > now() - interval '60 seconds'
               AND started_at > clock_timestamp() - interval '60 seconds' AND {calls}
             ORDER BY started_at DESC OFFSET %(most)s - 1 LIMIT 1)
"""

_RELEASE = """
    WITH busy AS (
        SELECT user_id, count(*) AS calls FROM attempts
         WHERE status = 'started' AND lease_until > clock_timestamp()
         GROUP BY user_id
    ), served AS (
        SELECT user_id, max(id) AS last
          FROM (SELECT id, user_id FROM attempts ORDER BY id DESC LIMIT 500) AS newest
         GROUP BY user_id
    ), line AS (
        SELECT i.id, i.seq, coalesce(served.last, 0) AS last, coalesce(busy.calls, 0)
               + row_number() OVER (PARTITION BY i.user_ids[1] ORDER BY i.seq) AS place
          FROM instructions i
          LEFT JOIN busy ON busy.user_id = i.user_ids[1]
          LEFT JOIN served ON served.user_id = i.user_ids[1]
         WHERE {waiting}
    ), first AS (
        SELECT i.id FROM instructions i JOIN line ON line.id = i.id
         ORDER BY line.place, line.last, line.seq
         LIMIT %(room)s
           FOR UPDATE OF i SKIP LOCKED
    )
    UPDATE instructions SET state = 'decoded', wait_reason = NULL, published_at = now()
      FROM first
     WHERE instructions.id = first.id AND instructions.state = 'waiting'
    RETURNING CAST(instructions.id AS text), instructions.type
"""

#: Whoever waits for anything but its turn has a time, and the index knows it.
#: A range instead of IS NOT NULL: of a table without statistics PostgreSQL believes that few rows are
#: in a range and nearly all are not null, and then reads all of it where the index is empty.
HAS_A_TIME = "not_before BETWEEN '-infinity' AND 'infinity'"
_WAITING = f"{HAS_A_TIME} AND state = 'waiting' AND wait_reason = %(reason)s"


@dataclass(frozen=True, slots=True)
class Limit:
    """``most`` calls, of those that the ids name."""

    reason: str
    most: int
    provider_id: int | None = None
    llm_id: int | None = None
    user_id: int | None = None

    @property
    def _calls(self) -> str:
        names = [n for n in ("provider_id", "llm_id", "user_id") if getattr(self, n) is not None]
        return " AND ".join(f"{name} = %({name})s" for name in names)

    @property
    def _waiting(self) -> str:
        conditions = [_WAITING, "provider_id IS NOT DISTINCT FROM %(provider_id)s"]
        if self.llm_id is not None:
            conditions.append("llm_id = %(llm_id)s")
        if self.user_id is not None:
            conditions.append("user_ids[1] = %(user_id)s")
        return " AND ".join(conditions)

    @property
    def stripes(self) -> int:
        """How many calls may be opened at the same moment while the limit is shared."""
        return min(max(self.most // STRIPE_SHARE, STRIPES), MOST_STRIPES)

    @property
    def key(self) -> str:
        """The name of its lock."""
        return f"llmchatlinker {self.reason} {self.provider_id} {self.llm_id} {self.user_id}"

    @property
    def place(self) -> tuple[int, ...]:
        """Its place in the order in which everybody takes these locks."""
        ids = (self.provider_id or 0, self.llm_id or 0, self.user_id or 0)
        return (REASONS.index(self.reason), *ids)

    @property
    def values(self) -> dict[str, Any]:
        """What the statements about it take."""
        ids = {"provider_id": self.provider_id, "llm_id": self.llm_id, "user_id": self.user_id}
        return ids | {"reason": self.reason, "most": self.most, "key": self.key}

    def statement(self) -> str:
        """What counts, to be run behind the lock."""
        statement = _LAST_MINUTE if self.reason in RATES else _UNDER_WAY
        return statement.format(calls=self._calls, waiting=self._waiting)

    def look(self, rows: Rows, *, shared: bool = False) -> tuple[int, bool, float]:
        """Room for how many, whether somebody waits, and seconds until there is room by the clock.

        Locks the limit for the rest of the transaction; ``shared``: who looks parks nothing.
        """
        lock = _LOCK.format(shared="_shared" if shared else "")
        row = rows(self.values, lock, self.statement())[0]
        return self.most - int(row[0]), bool(row[1]), float(row[2] or 0.0)

    def let_go(self, rows: Rows, room: int) -> list[Released]:
        """Let as many of those who wait go on."""
        statement = _RELEASE.format(waiting=self._waiting)
        values = self.values | {"room": min(room, BATCH)}
        return [Released(UUID(row[0]), row[1]) for row in rows(values, statement)]


def limits_of(provider: Provider, llm: LLM, user_id: int | None) -> Iterator[Limit]:
    """Those that are set, in the order of ``place``."""
    if user_id is not None:
        for reason, name in (
            ("user", "user_concurrency"),
            ("user_rate", "user_requests_per_minute"),
        ):
            most = getattr(get_settings(), name)
            if most > 0:
                yield Limit(reason, most, user_id=user_id)
            most = provider.settings.get(name)
            if most is not None:
                yield Limit(reason, most, provider_id=provider.id, user_id=user_id)
    for reason, name in (("provider", "max_concurrency"), ("rate", "requests_per_minute")):
        most = provider.settings.get(name)
        if most is not None:
            yield Limit(reason, most, provider_id=provider.id)
    for reason, name in (("llm", "max_concurrency"), ("llm_rate", "requests_per_minute")):
        most = llm.settings.get(name)
        if most is not None:
            yield Limit(reason, most, provider_id=provider.id, llm_id=llm.id)


def admit(
    session: Session,
    instruction: Instruction,
    route: Route,
    user_id: int | None,
    aftermath: Aftermath,
) -> Parked | None:
    """None where the call may be made now; otherwise what it waits for."""
    rows = driver.within(session)
    for limit in limits_of(route.provider, route.llm, user_id):
        room, somebody_waits, seconds = limit.look(rows)
        if room > 0 and somebody_waits and instruction.not_before is None:
            released = limit.let_go(rows, room)
            aftermath.released += released
            room -= len(released)
        if room <= 0:
            instruction.llm_id = route.llm.id
            wait = max(seconds, 0.05) if limit.reason in RATES else None
            return Parked(limit.reason, wait, limit.provider_id)
    return None


def release(rows: Rows, limits: Iterable[Limit], aftermath: Aftermath) -> None:
    """Calls that count for these limits have ended: let those go on that waited for their places."""
    for limit in limits:
        if limit.reason not in RATES:
            let_those_go_on(rows, limit, aftermath)


def let_those_go_on(rows: Rows, limit: Limit, aftermath: Aftermath) -> None:
    """As many of who waits for the limit as there is room for, or an alarm for when there is some."""
    room, somebody_waits, seconds = limit.look(rows, shared=True)
    if not somebody_waits:
        return
    if room > 0:
        aftermath.released += limit.let_go(rows, room)
    elif seconds > 0:
        aftermath.alarms.append(seconds)


def after_cooldown(session: Session, provider_id: int, room: int = BATCH) -> list[Released]:
    """Let those go on that wait for a provider to recover."""
    rows = driver.within(session)
    return Limit("cooldown", room, provider_id=provider_id).let_go(rows, room)
