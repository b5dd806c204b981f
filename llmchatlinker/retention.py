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
#: Below every key.
BEGINNING = -1
#: Seconds that a round of the sweeper takes at most.
ROUND = 1.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What is purged. ``setting``: for how many seconds it is kept, 0 for ever."""

    name: str
    setting: str
    statement: str


#: An instruction's row is its result as well. Its stream can't be followed without it; nobody waits for
#: what has ended. What is open is passed over, however much of it is in front.
_INSTRUCTIONS = """
    WITH oldest AS (
        SELECT id, seq, final_at FROM instructions WHERE seq > :after AND final_at IS NOT NULL
         ORDER BY seq LIMIT :window
    ), due AS (
        SELECT instructions.id FROM instructions JOIN oldest USING (id)
         WHERE oldest.final_at < now() - make_interval(secs => :seconds)
           AND instructions.turn IS DISTINCT FROM 'active'
         ORDER BY oldest.seq LIMIT :batch FOR UPDATE OF instructions SKIP LOCKED
    ), streams AS (
        DELETE FROM events USING due WHERE events.instruction_id = due.id
    ), waiting AS (
        DELETE FROM waiters USING due WHERE waiters.instruction_id = due.id
    ), gone AS (
        DELETE FROM instructions USING due WHERE instructions.id = due.id RETURNING seq
    )
    SELECT count(*), max(seq) FROM gone
"""


def _by(table: str, key: str, moment: str, open_rows: str = "false") -> str:
    """The oldest rows of a table, in the order of ``key``, which follows that of ``moment``."""
    return f"""
        WITH gone AS (
            DELETE FROM {table} WHERE {key} IN (
                SELECT {key} FROM (SELECT * FROM {table} WHERE {key} > :after
                                    ORDER BY {key} LIMIT :window) AS oldest
                 WHERE {moment} < now() - make_interval(secs => :seconds) AND NOT ({open_rows})
                 ORDER BY {key} LIMIT :batch
            ) RETURNING {key}
        )
        SELECT count(*), max({key}) FROM gone
    """


#: Instructions that name somebody who is gone are gone, too.
_NAMES = """
    WITH gone AS (
        UPDATE former_users SET usernames = NULL, chat_ids = '{}' WHERE user_id IN (
            SELECT user_id FROM former_users
             WHERE usernames IS NOT NULL AND left_at < now() - make_interval(secs => :seconds)
             ORDER BY left_at LIMIT :batch FOR UPDATE SKIP LOCKED
        ) RETURNING user_id
    )
    SELECT count(*), NULL FROM gone
"""
_TASK_RESULTS = """
    WITH gone AS (
        DELETE FROM task_results WHERE task_id IN (
            SELECT task_id FROM task_results
             WHERE date_done < now() - make_interval(secs => :seconds)
             ORDER BY date_done LIMIT :batch FOR UPDATE SKIP LOCKED
        ) RETURNING task_id
    )
    SELECT count(*), NULL FROM gone
"""

KINDS = (
    Kind("instructions", "instruction_retention", _INSTRUCTIONS),
    Kind("names of deleted users", "instruction_retention", _NAMES),
    Kind("dead letters", "dead_letter_retention", _by("dead_letters", "id", "arrived_at")),
    Kind("records", "record_retention", _by("records", "id", "finished_at")),
    Kind("attempts", "ledger_retention", _by("attempts", "id", "started_at", "status = 'started'")),
    Kind("task results", "task_result_retention", _TASK_RESULTS),
)

#: Who waited for an id that never ended has long gone: no deadline is longer than a day.
_WAITERS = """
    WITH gone AS (
        DELETE FROM waiters WHERE ctid IN (
            SELECT ctid FROM waiters WHERE created_at < now() - interval '2 days' LIMIT :batch
        ) RETURNING 1
    )
    SELECT count(*), NULL FROM gone
"""
#: The embedded broker marks a delivered message and keeps it.
_DELIVERED = """
    WITH gone AS (
        DELETE FROM kombu_message WHERE id IN (
            SELECT id FROM kombu_message WHERE NOT visible LIMIT 10000
        ) RETURNING 1
    )
    SELECT count(*), NULL FROM gone
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
        after = BEGINNING
        while keep and time.monotonic() < end:
            gone, last = _batch(kind.statement, keep, may, after)
            done[kind.name] += gone
            if gone:
                report(kind.name, gone)
            if gone < BATCH:
                break
            # Not from the beginning: where a long transaction keeps vacuum away, the index still has
            # everything that was deleted, and each batch would step over all of it.
            after = last if last is not None else BEGINNING
    _batch(_WAITERS, 0.0, may)
    if settings.broker_is_embedded:
        _batch(_DELIVERED, 0.0, may)
    return +done


def delete_batch(
    session: Session, statement: str, keep: float, after: int = BEGINNING
) -> tuple[int, int | None]:
    """A batch of what is older than ``keep`` seconds; how many rows, and the key of the last one."""
    values = {"seconds": keep, "batch": BATCH, "window": 4 * BATCH, "after": after}
    given = {name: values[name] for name in values if f":{name}" in statement}
    count, last = session.execute(text(statement), given).one()
    return count, last


def _batch(
    statement: str, keep: float, may: Callable[[Session], bool], after: int = BEGINNING
) -> tuple[int, int | None]:
    def work(session: Session) -> tuple[int, int | None]:
        return delete_batch(session, statement, keep, after) if may(session) else (0, None)

    return database().run(work, patience=get_settings().client_patience)
