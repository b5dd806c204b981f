"""Compaction: of a stream that ended long ago, only its last event is kept.

The text is in the message. Who follows such a stream gets ``response.snapshot``, made of the message,
for the events that are no longer there one by one, and then the last event under its old number.
"""

from __future__ import annotations

import uuid

from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.settings import get_settings
from llmchatlinker.streaming import store
from llmchatlinker.streaming.events import ENDINGS, ending

#: Rows that are looked at in one go, so that the transaction stays short.
BATCH = 5_000

#: Streams that ended long ago, or whose instruction is no longer there. Not those whose answer is
#: still open: somebody is still to store how they end.
_OLD = text(
    """
    SELECT DISTINCT instruction_id FROM (
        SELECT e.instruction_id FROM events e
         WHERE NOT e.compacted
           AND e.created_at < now() - make_interval(secs => :retention)
           AND NOT EXISTS (SELECT FROM instructions i WHERE i.id = e.instruction_id
                              AND (i.final_at IS NULL
                                   OR i.final_at > now() - make_interval(secs => :retention)))
           AND NOT EXISTS (SELECT FROM messages m WHERE m.instruction_id = e.instruction_id
                              AND m.status = 'generating')
         ORDER BY e.created_at LIMIT :batch) old
    """
)

#: The outcomes of those whose last event nobody has stored.
_UNENDED = text(
    """
    SELECT i.id, i.outcome FROM instructions i
     WHERE i.id = ANY (:ids)
       AND (SELECT events->-1->>'type' FROM events WHERE instruction_id = i.id
             ORDER BY first DESC LIMIT 1) <> ALL (:endings)
    """
)

_ORPHANS = text(
    """
    DELETE FROM events
     WHERE instruction_id = ANY (:ids)
       AND NOT EXISTS (SELECT FROM instructions i WHERE i.id = events.instruction_id)
    """
)

_COMPACT = text(
    """
    WITH kept AS (
        SELECT DISTINCT ON (instruction_id) instruction_id, first, last, events->-1 AS ending
          FROM events WHERE instruction_id = ANY (:ids)
         ORDER BY instruction_id, first DESC
    ), gone AS (
        DELETE FROM events USING kept
         WHERE events.instruction_id = kept.instruction_id AND events.first <> kept.first
    )
    UPDATE events
       SET first = kept.last, events = jsonb_build_array(kept.ending), compacted = true
      FROM kept
     WHERE events.instruction_id = kept.instruction_id AND events.first = kept.first
    RETURNING events.instruction_id
    """
)


def compact(session: Session) -> int:
    """Compact what ended more than ``event_retention`` ago, a batch of it; how many streams."""
    values = {"retention": get_settings().event_retention, "batch": BATCH}
    ids: list[uuid.UUID] = list(session.scalars(_OLD, values))
    if not ids:
        return 0
    session.execute(_ORPHANS, {"ids": ids})
    for instruction_id, outcome in session.execute(
        _UNENDED, {"ids": ids, "endings": list(ENDINGS)}
    ):
        store.append(session, instruction_id, None, [ending(outcome)])
    return len(session.scalars(_COMPACT, {"ids": ids}).all())
