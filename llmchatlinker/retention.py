"""Retention: what nobody needs any longer goes, in small batches. Messages of chats stay.

What is open is never touched, and a ledger outlives the instructions that it tells of. Each batch is a
transaction of its own, takes only rows that nobody holds, and looks at the oldest rows of its table
only: so a round costs next to nothing while there is nothing to purge, however large the table is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.db.sessions import database
from llmchatlinker.settings import get_settings

#: Rows that go in a transaction.
BATCH = 500
#: Seconds that a round of the sweeper takes at most.
ROUND = 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What is purged. ``setting``: for how many seconds it is kept, 0 for ever."""

    name: str
    setting: str
    statement: str


#: An instruction's row is its result as well. Its stream can't be followed without it; nobody waits for
#: what has ended.
_INSTRUCTIONS = """
    WITH oldest AS (
        SELECT id, final_at FROM instructions ORDER BY seq LIMIT :window
    ), due AS (
        SELECT instructions.id FROM instructions JOIN oldest USING (id)
         WHERE oldest.final_at < now() - make_interval(secs => :seconds)
           AND instructions.turn IS DISTINCT FROM 'active'
         LIMIT :batch FOR UPDATE OF instructions SKIP LOCKED
    ), streams AS (
        DELETE FROM events USING due WHERE events.instruction_id = due.id
    ), waiting AS (
        DELETE FROM waiters USING due WHERE waiters.instruction_id = due.id
    )
    DELETE FROM instructions USING due WHERE instructions.id = due.id
"""


def _by(table: str, key: str, moment: str, open_rows: str = "false") -> str:
    """The oldest rows of a table, in the order of ``key``, which follows that of ``moment``."""
    return f"""
        DELETE FROM {table} WHERE {key} IN (
            SELECT {key} FROM (SELECT * FROM {table} ORDER BY {key} LIMIT :window) AS oldest
             WHERE {moment} < now() - make_interval(secs => :seconds) AND NOT ({open_rows})
             LIMIT :batch
        )
    """


KINDS = (
    Kind("instructions", "instruction_retention", _INSTRUCTIONS),
    Kind("dead letters", "dead_letter_retention", _by("dead_letters", "id", "arrived_at")),
    Kind("records", "record_retention", _by("records", "id", "finished_at")),
    Kind("attempts", "ledger_retention", _by("attempts", "id", "started_at", "status = 'started'")),
    Kind(
        "task results",
        "task_result_retention",
        """
        DELETE FROM task_results WHERE task_id IN (
            SELECT task_id FROM task_results
             WHERE date_done < now() - make_interval(secs => :seconds)
             ORDER BY date_done LIMIT :batch FOR UPDATE SKIP LOCKED
        )
        """,
    ),
)

#: Who waited for an id that never ended has long gone: no deadline is longer than a day.
_WAITERS = """
    DELETE FROM waiters WHERE ctid IN (
        SELECT ctid FROM waiters WHERE created_at < now() - interval '2 days' LIMIT :batch
    )
"""
#: The embedded broker marks a delivered message and keeps it.
_DELIVERED = """
    DELETE FROM kombu_message WHERE id IN
        (SELECT id FROM kombu_message WHERE NOT visible LIMIT 10000)
"""


def purge(
    may: Callable[[Session], bool] = lambda session: True,
    seconds: float = ROUND,
    report: Callable[[str, int], object] = lambda kind, count: None,
) -> Counter[str]:
    """Purge what is due, for so long at most; counts by kind.

    ``may``: asked in each transaction whether to go on. ``report``: told of each batch.
    """
    done: Counter[str] = Counter()
    settings = get_settings()
    end = time.monotonic() + seconds
    for kind in KINDS:
        keep = getattr(settings, kind.setting)
        while keep and time.monotonic() < end:
            gone = _batch(kind.statement, keep, may)
            done[kind.name] += gone
            if gone:
                report(kind.name, gone)
            if gone < BATCH:
                break
    _batch(_WAITERS, 0.0, may)
    if settings.broker_is_embedded:
        _batch(_DELIVERED, 0.0, may)
    return +done


def _batch(statement: str, keep: float, may: Callable[[Session], bool]) -> int:
    values = {"seconds": keep, "batch": BATCH, "window": 4 * BATCH}

    def work(session: Session) -> int:
        if not may(session):
            return 0
        given = {name: values[name] for name in values if f":{name}" in statement}
        result = session.execute(text(statement), given)
        return int(getattr(result, "rowcount", 0))

    return database().run(work, patience=get_settings().client_patience)
