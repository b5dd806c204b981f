"""The order of turns in a chat: one is active, the others wait, and the first of them goes on next."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.models import Instruction


@dataclass(frozen=True, slots=True)
class Released:
    """An instruction that waited and may go on: publish it once the transaction has committed."""

    instruction_id: uuid.UUID
    type: str


@dataclass(slots=True)
class Aftermath:
    """What a transaction leaves to be done once it has committed; ``after_commit.follow`` does it.

    All of it is best effort: what gets lost here is found by the sweeper, or read from the rows.
    """

    released: list[Released] = field(default_factory=list)
    #: Instructions that have got their outcome here, and no message that would store it.
    concluded: list[uuid.UUID] = field(default_factory=list)
    #: Stored events for live followers: whose, the first one's number, and the events.
    events: list[tuple[uuid.UUID, int, list[dict[str, Any]]]] = field(default_factory=list)
    #: Seconds after which something that was parked is due.
    alarms: list[float] = field(default_factory=list)


#: The chat's lock orders this against a turn that is just finding out that it must wait.
_LOCK_CHAT = "SELECT FROM chats WHERE id = ANY (CAST(%(chats)s AS int[])) FOR NO KEY UPDATE"

#: Behind that, so that it sees what was committed while the lock was waited for.
RELEASE = """
    UPDATE instructions SET state = 'decoded', wait_reason = NULL, published_at = now()
     WHERE id = ANY (ARRAY(
               SELECT next.id
                 FROM unnest(CAST(%(chats)s AS int[])) AS chats (id)
                CROSS JOIN LATERAL (
                      SELECT id FROM instructions
                       WHERE chat_id = chats.id AND turn IN ('queued', 'active')
                       ORDER BY turn = 'active' DESC, seq LIMIT 1) AS next))
       AND turn = 'queued' AND state = 'waiting' AND wait_reason = 'turn'
    RETURNING CAST(id AS text), type, chat_id
"""


def release_next_turn(session: Session, chat_id: int | None) -> tuple[Released, ...]:
    """Let the chat's first waiting turn go on, unless another is active or on its way already."""
    if chat_id is None:
        return ()
    session.flush()
    rows = driver.rows(session, {"chats": [chat_id]}, _LOCK_CHAT, RELEASE)
    return tuple(Released(uuid.UUID(row[0]), row[1]) for row in rows)


#: For several turns in one transaction: locks of them, and of their chats, what nobody else has locked,
#: so that it waits for no row and is in nobody's way for long; nor does it wait for a limit's lock for
#: longer than that. The ids that both were locked of are ``THEIRS`` from then on, for the statements
#: that follow. All of those go by keys; but PostgreSQL takes a list in JSON for a hundred rows, and for
#: these reads a table of some hundred pages as a whole, unless told not to when it makes its plan.
LOCK_TURNS = """
    SELECT set_config('llmchatlinker.turns', CAST(ARRAY(
               SELECT id FROM instructions
                WHERE id = ANY (CAST(CAST(%(ids)s AS text[]) AS uuid[]))
                  FOR NO KEY UPDATE SKIP LOCKED) AS text), true),
           set_config('lock_timeout', '300ms', true), set_config('enable_seqscan', 'off', true)
"""
THEIRS = "CAST(current_setting('llmchatlinker.turns') AS uuid[])"
LOCK_THEIR_CHATS = """
    SELECT set_config('llmchatlinker.turns', CAST(ARRAY(
               SELECT i.id
                 FROM (SELECT id FROM chats
                        WHERE id = ANY (ARRAY(
                                  SELECT chat_id FROM instructions WHERE id = ANY (/* theirs */)))
                          FOR NO KEY UPDATE SKIP LOCKED) AS locked
                 JOIN instructions i ON i.chat_id = locked.id
                WHERE i.id = ANY (/* theirs */)) AS text), true)
""".replace("/* theirs */", THEIRS)


def stop_turns_of_chats(session: Session, chat_ids: Any) -> None:
    """Have the calls broken off that are made for chats (ids, or a query of them) that are deleted."""
    session.execute(
        update(Instruction)
        .where(Instruction.chat_id.in_(chat_ids), Instruction.turn.in_(("queued", "active")))
        .values(cancel_requested="cancelled")
        .execution_options(synchronize_session=False)
    )
