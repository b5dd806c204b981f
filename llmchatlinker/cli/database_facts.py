"""What can be seen of the system in PostgreSQL: what is under way, how old it is, connections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import CONTROL, DATABASE

#: Reads the open rows, of which there are ``max_open`` at most, by their own index.
_OPEN = """
    SELECT type, state, wait_reason, count(*),
           extract(epoch FROM clock_timestamp() - min(submitted_at))::float8
      FROM instructions WHERE final_at IS NULL GROUP BY type, state, wait_reason
"""

#: Of the newest instructions only: their order of submission is an index.
_LATELY = """
    SELECT count(*) FILTER (WHERE final_at > clock_timestamp() - interval '1 minute'),
           count(*) FILTER (WHERE final_at > clock_timestamp() - interval '1 minute'
                              AND outcome->>'status' = 'error')
      FROM (SELECT final_at, outcome FROM instructions ORDER BY seq DESC LIMIT 10000) AS newest
"""

#: The rows of other users' connections have no names for who may not see them, but they count.
_CONNECTIONS = """
    SELECT current_setting('max_connections')::int
               - current_setting('superuser_reserved_connections')::int,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
           (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'llmchatlinker'
               AND datname = current_database())
"""


_ERASED = """
    SELECT coalesce(sum(CAST(value AS bigint)), 0) FROM former_users, jsonb_each_text(erased)
     WHERE user_id = %(user_id)s
"""


@dataclass(slots=True)
class UnderWay:
    """Open instructions. Ages are seconds since they were submitted; None where there are none."""

    open: int = 0
    by_state: dict[str, int] = field(default_factory=dict)
    #: How many have a stage due on each queue.
    due: dict[str, int] = field(default_factory=dict)
    oldest_open: float | None = None
    waiting: dict[str, int] = field(default_factory=dict)
    oldest_waiting: float | None = None
    finished_last_minute: int = 0
    failed_last_minute: int = 0


@dataclass(frozen=True, slots=True)
class Connections:
    """PostgreSQL's: how many there may be, how many there are, and how many of these are ours."""

    limit: int
    used: int
    ours: int


def under_way() -> UnderWay:
    """What is open, and what has ended lately. Raises Unavailable."""
    found = UnderWay()
    for type_name, state, reason, count, age in _rows(_OPEN):
        found.open += count
        found.by_state[state] = found.by_state.get(state, 0) + count
        found.oldest_open = max(age, found.oldest_open or 0.0)
        if state == "waiting":
            found.waiting[reason or "?"] = found.waiting.get(reason or "?", 0) + count
            found.oldest_waiting = max(age, found.oldest_waiting or 0.0)
        else:
            queue = _queue(type_name, state)
            found.due[queue] = found.due.get(queue, 0) + count
    found.finished_last_minute, found.failed_last_minute = _rows(_LATELY)[0]
    return found


def _queue(type_name: str, state: str) -> str:
    if state == "submitted":
        return CONTROL
    spec = INSTRUCTION_SET.get(type_name)
    return DATABASE if state == "executed" or spec is None else spec.queue


def connections() -> Connections:
    """See Connections. Raises Unavailable."""
    return Connections(*_rows(_CONNECTIONS)[0])


def erased_so_far(user_id: int) -> int:
    """Rows of a user's that an erasure has found by now. Raises Unavailable."""
    return int(_rows(_ERASED, {"user_id": user_id})[0][0])


def _rows(sql: str, values: dict[str, Any] | None = None) -> list[Any]:
    return database().statement(sql, values or {}, patience=get_settings().client_patience)
