"""The order of turns in a chat: one is active, the others wait, and the first of them goes on next."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
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
LOCK_CHAT = "SELECT FROM chats WHERE id = %(chat_id)s FOR NO KEY UPDATE"

#: Behind that, so that it sees what was committed while the lock was waited for.
RELEASE = """
    UPDATE instructions SET state = 'decoded', wait_reason = NULL, published_at = now()
     WHERE id = (SELECT id FROM instructions
                  WHERE chat_id = %(chat_id)s AND turn IN ('queued', 'active')
                  ORDER BY turn = 'active' DESC, seq LIMIT 1)
       AND turn = 'queued' AND state = 'waiting' AND wait_reason = 'turn'
    RETURNING CAST(id AS text), type
"""


def release_next_turn(session: Session, chat_id: int | None) -> tuple[Released, ...]:
    """Let the chat's first waiting turn go on, unless another is active or on its way already."""
    if chat_id is None:
        return ()
    session.flush()
    return released(driver.rows(session, {"chat_id": chat_id}, LOCK_CHAT, RELEASE))


def released(rows: Iterable[Any]) -> tuple[Released, ...]:
    """Rows of ids and types."""
    return tuple(Released(uuid.UUID(row[0]), row[1]) for row in rows)


def stop_turns_of_chats(session: Session, chat_ids: Any) -> None:
    """Have the calls broken off that are made for chats (ids, or a query of them) that are deleted."""
    session.execute(
        update(Instruction)
        .where(Instruction.chat_id.in_(chat_ids), Instruction.turn.in_(("queued", "active")))
        .values(cancel_requested="cancelled")
        .execution_options(synchronize_session=False)
    )
