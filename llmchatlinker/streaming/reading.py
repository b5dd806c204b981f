"""Reading events: one query for however many followers, and a second one for what has ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.errors import DeadlineExceeded
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.results.reading import end
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.events import ENDINGS, Event

#: Rows of events that one look takes for one follower, at most.
ROWS = 32

#: The row that the next event is in comes first. Withdrawn is as good as never submitted.
_READ = """
    SELECT w.n, i.type, i.outcome IS NOT NULL,
           i.final_at IS NULL AND i.deadline_at < clock_timestamp(), e.first, e.last, e.events
      FROM unnest(CAST(%(ids)s AS uuid[]), CAST(%(nexts)s AS int[]))
           WITH ORDINALITY AS w (id, next, n)
      JOIN instructions i ON i.id = w.id AND i.state <> 'withdrawn'
      LEFT JOIN LATERAL (
               SELECT first, last, events FROM events
                WHERE instruction_id = w.id AND last >= w.next
                  AND first >= coalesce((SELECT max(first) FROM events
                                          WHERE instruction_id = w.id AND first <= w.next), 0)
                ORDER BY first LIMIT %(rows)s
           ) e ON true
     ORDER BY w.n, e.first
"""

_ENDED = """
    SELECT CAST(i.id AS text), i.outcome,
           coalesce((SELECT CASE WHEN events->-1->>'type' = ANY (%(endings)s) THEN last - 1
                                 ELSE last END
                       FROM events WHERE instruction_id = i.id ORDER BY first DESC LIMIT 1), 0),
           (SELECT jsonb_build_object(
                       'message_id', m.id, 'parent_message_id', m.parent_id, 'chat_id', m.chat_id,
                       'llm_id', m.llm_id, 'llm_name', m.llm_name, 'text', m.content,
                       'reasoning', m.reasoning, 'tool_calls', m.tool_calls)
              FROM messages m
             WHERE m.instruction_id = i.id AND m.role = 'assistant'
             ORDER BY m.id DESC LIMIT 1)
      FROM instructions i
     WHERE i.id = ANY (CAST(%(ids)s AS uuid[]))
       -- While its answer is open, somebody is still to store how the stream ends.
       AND NOT EXISTS (SELECT FROM messages m
                        WHERE m.instruction_id = i.id AND m.status = 'generating')
"""

Row = tuple[int, int, list[Event]]


@dataclass(slots=True)
class Found:
    """What is in PostgreSQL of a stream, from the event ``next`` on."""

    next: int
    known: bool = False
    #: Its instruction is a generation.
    streams: bool = False
    #: Its instruction has an outcome, so that no event is added any more.
    ended: bool = False
    #: First and last number, and the events.
    rows: list[Row] = field(default_factory=list, repr=False)
    #: Of what has ended, where it is needed: the outcome, the number before that of the last event,
    #: and the message.
    outcome: dict[str, Any] | None = field(default=None, repr=False)
    last: int = 0
    message: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def complete(self) -> bool:
        """There was nothing more when it was read."""
        return len(self.rows) < ROWS

    @property
    def needs_more(self) -> bool:
        """Old events were compacted, or nobody has stored how it ended."""
        if not self.ended:
            return False
        if not self.rows:
            return True
        has_ending = self.rows[-1][2][-1]["type"] in ENDINGS
        return self.rows[0][0] > self.next or (self.complete and not has_ending)


def read(wanted: Sequence[tuple[str, int]]) -> list[Found]:
    """What there is of each stream, given as its id and the number of the next event.

    Ends what is past its deadline. Raises Unavailable when PostgreSQL does not answer within the
    client's patience.
    """
    patience = get_settings().client_patience
    found = [Found(number) for _, number in wanted]
    ids = [instruction_id for instruction_id, _ in wanted]
    late: set[str] = set()
    values = {"ids": ids, "nexts": [number for _, number in wanted], "rows": ROWS}
    for n, type_name, ended, is_late, *row in database().statement(
        _READ, values, patience=patience
    ):
        item = found[n - 1]
        spec = INSTRUCTION_SET.get(type_name)
        item.known, item.streams, item.ended = True, spec is not None and spec.takes_turn, ended
        if row[0] is not None:
            item.rows.append((row[0], row[1], row[2]))
        if is_late:
            late.add(ids[n - 1])
    if late:
        for text in late:
            end(uuid.UUID(text), DeadlineExceeded(), patience=patience)
        again = [index for index, text in enumerate(ids) if text in late]
        for index, item in zip(again, read([wanted[i] for i in again]), strict=True):
            found[index] = item
    _add_ends(ids, found, patience)
    return found


def _add_ends(ids: Sequence[str], found: Sequence[Found], patience: float) -> None:
    needy = [index for index, item in enumerate(found) if item.needs_more and item.outcome is None]
    if not needy:
        return
    values = {"ids": list({ids[index] for index in needy}), "endings": list(ENDINGS)}
    rows = {row[0]: row[1:] for row in database().statement(_ENDED, values, patience=patience)}
    for index in needy:
        if ids[index] in rows:
            found[index].outcome, found[index].last, found[index].message = rows[ids[index]]


def register(instruction_ids: Sequence[str], queue: str) -> None:
    """Have the events of these streams pushed to this queue, and their ends hinted."""
    database().statement(
        """
        INSERT INTO waiters (instruction_id, queue, following)
        SELECT CAST(id AS uuid), %(queue)s, true FROM unnest(CAST(%(ids)s AS text[])) AS id
        ON CONFLICT (instruction_id, queue) DO UPDATE SET following = true
        """,
        {"ids": list(instruction_ids), "queue": queue},
        patience=get_settings().client_patience,
    )


def unregister(instruction_ids: Sequence[str], queue: str) -> None:
    """No longer."""
    database().statement(
        """
        DELETE FROM waiters
         WHERE queue = %(queue)s AND instruction_id = ANY (CAST(%(ids)s AS uuid[]))
        """,
        {"ids": list(instruction_ids), "queue": queue},
        patience=get_settings().client_patience,
    )
