"""Limits that calls share: they are far from full, or a call ends, and nobody need have them alone.

``limits.py`` says why that is enough. The turns of one transaction share them too, each with a stripe of
its own: what one count does not see then has one of the others, whoever it is.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from llmchatlinker.db.sessions import Database, database
from llmchatlinker.units.limits import HAS_A_TIME, RATES, STRIPES, Limit, limits_of
from llmchatlinker.units.routing import Route

#: Limits whose last count a process remembers.
REMEMBERED = 10_000

#: Of calls that are to be opened without having a limit alone, and of those that end: shares them all.
SHARE = """
    SELECT pg_advisory_xact_lock_shared(hashtextextended(key, 0))
      FROM jsonb_to_recordset(CAST(%(limits)s AS jsonb)) AS limits (key text)
"""

#: Behind ``SHARE``: each call's stripe of each.
STRIPE = """
    SELECT pg_advisory_xact_lock(hashtextextended(stripe, 0))
      FROM unnest(CAST(%(stripes)s AS text[])) AS stripes (stripe)
"""

#: Behind ``STRIPE``, and in a statement of its own, which sees what was committed until then: how many
#: calls count for each limit. None where a count of before shows that there is room: since the call that
#: was ``newest`` then, no more can have begun than the ledger has got ids, but for those that neither
#: this look nor that one has seen.
COUNTED = """
    newest AS (
        SELECT coalesce(max(id), 0) AS id FROM attempts
    ), counted AS (
        SELECT limits.*,
               CASE WHEN newest.id >= newest_known
                         AND most >= 2 * stripes + calls_known + newest.id - newest_known THEN NULL
                    WHEN user_id IS NOT NULL THEN (
                        SELECT count(*) FROM attempts a
                         WHERE a.status = 'started' AND a.user_id = limits.user_id
                           AND (limits.provider_id IS NULL OR a.provider_id = limits.provider_id))
                    ELSE (
                        SELECT count(*) FROM attempts a
                         WHERE a.status = 'started' AND a.provider_id = limits.provider_id
                           AND (limits.llm_id IS NULL OR a.llm_id = limits.llm_id))
               END AS calls
          FROM newest, jsonb_to_recordset(CAST(%(limits)s AS jsonb))
                    AS limits (key text, reason text, most int, stripes int, provider_id int,
                               llm_id int, user_id int, calls_known bigint, newest_known bigint)
    )
"""

#: Of those: the limits that have no room for sure, or for which somebody waits.
FULL = """
    SELECT key FROM counted
     WHERE most < stripes + calls
        OR EXISTS (
               SELECT FROM instructions i
                WHERE /* has a time */ AND i.state = 'waiting'
                  AND i.wait_reason = counted.reason
                  AND i.provider_id IS NOT DISTINCT FROM counted.provider_id
                  AND (counted.llm_id IS NULL OR i.llm_id = counted.llm_id)
                  AND (counted.user_id IS NULL OR i.user_ids[1] = counted.user_id))
""".replace("/* has a time */", HAS_A_TIME)

#: What ``note_counted`` takes.
COUNTS = """
    (SELECT jsonb_object_agg(key, calls) FROM counted WHERE calls IS NOT NULL),
    (SELECT id FROM newest)
"""


class Shared:
    """The limits that the turns of one transaction share, and their stripes."""

    def __init__(self) -> None:
        self._limits: dict[str, Limit] = {}
        self._stripes: dict[str, tuple[Any, ...]] = {}

    def add(self, limits: Iterable[Limit], seq: int) -> bool:
        """Add a turn that is to be opened; False where another one has its stripe.

        ``seq``: the turn's place in the order of submission.
        """
        stripes = {
            f"{limit.key} {seq % limit.stripes}": (*limit.place, seq % limit.stripes)
            for limit in limits
        }
        if not self._stripes.keys().isdisjoint(stripes):
            return False
        self._stripes |= stripes
        self.add_ended(limits)
        return True

    def add_ended(self, limits: Iterable[Limit]) -> None:
        """Add a turn whose call has ended."""
        self._limits |= {limit.key: limit for limit in limits}

    @property
    def limits(self) -> list[Limit]:
        """In the order in which all take their locks."""
        return sorted(self._limits.values(), key=lambda limit: limit.place)

    @property
    def values(self) -> dict[str, Any]:
        """What the statements take."""
        limits = [
            limit.values | {"stripes": limit.stripes} | _counts.known(limit.key)
            for limit in self.limits
        ]
        stripes = sorted(self._stripes, key=lambda stripe: self._stripes[stripe])
        return {"limits": json.dumps(limits), "stripes": stripes}


def to_open(route: Route, user_id: int | None) -> list[Limit] | None:
    """The limits of a call; None where one of them must be had alone."""
    found = list(limits_of(route.provider, route.llm, user_id))
    if any(limit.reason in RATES or limit.most < 2 * STRIPES for limit in found):
        return None
    return found


def to_end(route: Route, user_id: int | None) -> list[Limit]:
    """The limits on which the end of a call has a bearing."""
    found = limits_of(route.provider, route.llm, user_id)
    return [limit for limit in found if limit.reason not in RATES]


class _Counts:
    """What this process has counted last, by the limits' keys: calls, and the newest one of all."""

    def __init__(self) -> None:
        self._of: Database | None = None
        self._known: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, key: str) -> dict[str, int]:
        """As ``COUNTED`` takes them; nothing, where nothing is known."""
        with self._lock:
            found = self._known.get(key) if self._of is database() else None
        return {} if found is None else {"calls_known": found[0], "newest_known": found[1]}

    def note(self, calls: Mapping[str, int], newest: int) -> None:
        """So many were counted, and that was the newest call in the ledger."""
        with self._lock:
            if self._of is not database():
                self._of = database()
                self._known.clear()
            for key, number in calls.items():
                self._known[key] = number, newest
                self._known.move_to_end(key)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


_counts = _Counts()


def _after_fork() -> None:
    global _counts
    _counts = _Counts()  # a thread of the parent may have had its lock


os.register_at_fork(after_in_child=_after_fork)


def note_counted(calls: Mapping[str, int] | None, newest: int) -> None:
    """Remember what ``COUNTS`` has found."""
    if calls:
        _counts.note(calls, newest)
