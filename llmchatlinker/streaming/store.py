"""Events in PostgreSQL: what belongs into a caller's transaction.

Who calls ``append`` or ``append_tail`` holds the lock of the instruction's row: so does everybody who
writes events of a stream, the writer included, and so a number is given once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.models import Event as EventRow
from llmchatlinker.db.models import Instruction, Message
from llmchatlinker.streaming.events import DELTA, Event, Partial, as_json
from llmchatlinker.streaming.tail import Tail

#: Events in one row, at most: an outage of PostgreSQL lets many pile up.
ROW_EVENTS = 500

_APPEND = text(
    """
    INSERT INTO events (instruction_id, first, last, attempt_id, events)
    SELECT CAST(:id AS uuid), had.last + 1, had.last + :count, :attempt, CAST(:events AS jsonb)
      FROM (SELECT coalesce(max(last), 0) AS last FROM events
             WHERE instruction_id = CAST(:id AS uuid)) had
    RETURNING first
    """
)

#: Rows of one or several streams whose numbers are given. Those that are stored already stay; a tail
#: whose stream was deleted meanwhile, with its chat, is not stored again.
APPEND_ROWS = """
    INSERT INTO events (instruction_id, first, last, attempt_id, events)
    SELECT n.id, n.first, n.last, n.attempt, CAST(n.events AS jsonb)
      FROM unnest(CAST(CAST(%(streams)s AS text[]) AS uuid[]), CAST(%(attempts)s AS bigint[]),
                  CAST(%(firsts)s AS int[]), CAST(%(lasts)s AS int[]), CAST(%(tails)s AS int[]),
                  CAST(%(rests)s AS int[]), CAST(%(texts)s AS text[]))
               AS n (id, attempt, first, last, tail, rest, events)
     CROSS JOIN LATERAL (
           SELECT coalesce(max(last), 0) AS last FROM events WHERE instruction_id = n.id) AS had
     WHERE n.first > had.last AND (had.last >= n.tail - 1 OR n.first >= n.rest)
    ON CONFLICT DO NOTHING
"""

#: Where nothing was stored before the end, the end is the time.
_SHOWN = """
    UPDATE attempts SET first_delta_at = least(finished_at, clock_timestamp())
     WHERE id = CAST(%(attempt)s AS bigint) AND first_delta_at IS NULL AND %(has_delta)s
"""


def append(
    session: Session, instruction_id: UUID, attempt_id: int | None, events: list[Event]
) -> int:
    """Store these events after the last stored one; returns the number of the first of them."""
    values = {
        "id": str(instruction_id),
        "attempt": attempt_id,
        "count": len(events),
        "events": as_json(events),
    }
    first: int = session.execute(_APPEND, values).scalar_one()
    return first


def append_tail(
    session: Session, instruction_id: UUID, attempt_id: int | None, tail: Tail, more: list[Event]
) -> tuple[int, list[Event]]:
    """Store what the writer had not stored, and ``more`` behind it; what to push, once committed.

    Harmless when its transaction is run twice, or when the tail turns out to be stored already.
    """
    rows = TailRows()
    rows.add(instruction_id, attempt_id, tail, more)
    if rows.values["firsts"]:
        values = rows.values | {"attempt": attempt_id, "has_delta": has_delta(tail)}
        driver.rows(session, values, _SHOWN, APPEND_ROWS)
    return tail.first, [*tail.events, *more]


class TailRows:
    """What ``APPEND_ROWS`` takes: the tails of streams, and what comes behind them."""

    def __init__(self) -> None:
        names = ("streams", "attempts", "firsts", "lasts", "tails", "rests", "texts")
        self.values: dict[str, list[Any]] = {name: [] for name in names}

    def add(
        self, instruction_id: UUID, attempt_id: int | None, tail: Tail, more: list[Event]
    ) -> None:
        """A stream's."""
        rest = tail.first + len(tail.events)
        for first, run in (*_runs(tail), (rest, more)):
            if run:
                last = first + len(run) - 1
                row = (str(instruction_id), attempt_id, first, last, tail.first, rest, as_json(run))
                for values, value in zip(self.values.values(), row, strict=True):
                    values.append(value)


def has_delta(tail: Tail) -> bool:
    """Whether something that was said is in it."""
    return any(event["type"] == DELTA for event in tail.events)


def _runs(tail: Tail) -> Iterable[tuple[int, list[Event]]]:
    """The tail in rows: cut where the writer has cut what is perhaps stored."""
    start = 0
    for cut in tail.cuts:
        yield tail.first + start, tail.events[start:cut]
        start = cut
    for first in range(start, len(tail.events), ROW_EVENTS):
        yield tail.first + first, tail.events[first : first + ROW_EVENTS]


def last_number(session: Session, instruction_id: UUID) -> int:
    """The number of the last stored event; 0 where there is none."""
    query = select(func.coalesce(func.max(EventRow.last), 0))
    return int(session.execute(query.where(EventRow.instruction_id == instruction_id)).scalar_one())


def partial(session: Session, instruction_id: UUID, attempt_id: int | None = None) -> Partial:
    """The response as far as it is stored; of one attempt only where that is named."""
    query = select(EventRow.last, EventRow.events).where(EventRow.instruction_id == instruction_id)
    if attempt_id is not None:
        query = query.where(EventRow.attempt_id == attempt_id)
    found = Partial()
    for last, events in session.execute(query.order_by(EventRow.first)):
        found.add(events)
        found.last = last
    return found


def delete_of_chats(session: Session, chat_ids: Any) -> None:
    """Remove the events of everything that was said in these chats (ids, or a query of them)."""
    said = select(Message.instruction_id).where(
        Message.chat_id.in_(chat_ids), Message.instruction_id.is_not(None)
    )
    submitted = select(Instruction.id).where(
        Instruction.chat_id.in_(chat_ids), Instruction.turn.is_not(None)
    )
    for ids in (said, submitted):
        session.execute(
            delete(EventRow)
            .where(EventRow.instruction_id.in_(ids))
            .execution_options(synchronize_session=False)
        )
