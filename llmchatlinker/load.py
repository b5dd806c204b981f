"""How much is under way, and whether there is room for more: a full system refuses new instructions.

The bound is ours and not the broker's. A queue with a maximum length refuses hand-offs in mid-cycle as
well as new work, and so stops the very instructions that would empty it. What is refused here is new;
what was accepted is never refused, and a cancel never is: it makes room.

The open rows are counted at most once in ``INTERVAL`` seconds for the whole system, by whichever process
comes first, and kept in a row that all others read; each process looks there as often. So submitting
costs nothing more, the count may be two seconds old, and the bound is a soft one: what comes in
meanwhile is beyond it.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

from llmchatlinker.db.schema import check_schema
from llmchatlinker.db.sessions import Database, database
from llmchatlinker.errors import Overloaded
from llmchatlinker.settings import get_settings

#: Seconds that a count is good for.
INTERVAL = 1.0
#: What a client is told: seconds after which to come back.
RETRY_AFTER = 5.0

_READ = """
    SELECT open, crowded, measured_at < clock_timestamp() - make_interval(secs => %(interval)s)
      FROM system_load
"""

#: Counts no further than twice the limit, and users only by their turns: those take long.
_MEASURE = """
    UPDATE system_load
       SET open = (SELECT count(*) FROM (SELECT FROM instructions WHERE final_at IS NULL
                                          LIMIT 2 * %(max_open)s) AS open_rows),
           crowded = ARRAY(SELECT user_id FROM instructions, unnest(user_ids) AS user_id
                            WHERE turn IN ('queued', 'active')
                            GROUP BY user_id HAVING count(*) >= %(max_per_user)s LIMIT 10000),
           measured_at = clock_timestamp()
     WHERE id IN (SELECT id FROM system_load
                   WHERE measured_at < clock_timestamp() - make_interval(secs => %(interval)s)
                     FOR UPDATE SKIP LOCKED)
    RETURNING open, crowded, false
"""


@dataclass(frozen=True, slots=True)
class Measure:
    """What was counted. ``crowded``: users who have as many turns as they may."""

    open: int
    crowded: frozenset[int]


class Load:
    """The process's view of the system's load."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measure = Measure(0, frozenset())
        self._looked_at = float("-inf")
        self._of: Database | None = None

    def measure(self) -> Measure:
        """The load, at most two intervals old. One thread looks; the others go by what is known."""
        current = database()  # a process may go to another one
        old = self._of is not current or time.monotonic() - self._looked_at > INTERVAL
        if old and self._lock.acquire(blocking=False):
            try:
                self._measure = _look()
                self._looked_at, self._of = time.monotonic(), current
            finally:
                self._lock.release()
        return self._measure


def _look() -> Measure:
    check_schema()  # with the wrong one, nothing that follows makes sense
    settings = get_settings()
    values: dict[str, Any] = {
        "interval": INTERVAL,
        "max_open": settings.max_open,
        "max_per_user": settings.max_open_per_user,
    }
    patience = settings.client_patience
    rows = database().statement(_READ, values, patience=patience, bounded=True)
    if rows and rows[0][2]:
        rows = database().statement(_MEASURE, values, patience=patience, bounded=True) or rows
    open_rows, crowded, _ = rows[0] if rows else (0, (), False)
    return Measure(open_rows, frozenset(crowded))


_load = Load()


def admit(*, takes_turn: bool, user_ids: list[int] | None) -> None:
    """Return where there is room for one more instruction of these users; Overloaded where not.

    Unavailable when PostgreSQL does not answer within the client's patience.
    """
    settings = get_settings()
    found = _load.measure()
    details = {"retry_after": RETRY_AFTER}
    if found.open >= settings.max_open:
        raise Overloaded(
            f"The system has {found.open} instructions under way and takes no more right now. "
            f"Try again in {RETRY_AFTER:.0f} seconds.",
            details | {"limit": settings.max_open},
        )
    if takes_turn and not found.crowded.isdisjoint(user_ids or ()):
        raise Overloaded(
            f"The user has {settings.max_open_per_user} turns under way, and may not have more. "
            f"Try again in {RETRY_AFTER:.0f} seconds.",
            details | {"limit": settings.max_open_per_user},
        )


def _after_fork() -> None:
    global _load
    _load = Load()  # a thread of the parent may have been looking


os.register_at_fork(after_in_child=_after_fork)
