"""The two ends of an instruction: its outcome (the work is committed) and its finality.

``commit_outcome`` belongs into the transaction that did the work. ``finalise`` is the only way to an
end: by compare-and-set, first wins, from the outcome where there is one.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Chat, Instruction
from llmchatlinker.envelope import Envelope, Stage, failure
from llmchatlinker.errors import LLMChatLinkerError


@dataclass(frozen=True, slots=True)
class Released:
    """An instruction that waited and may go on: publish it once the transaction has committed."""

    instruction_id: uuid.UUID
    type: str


@dataclass(frozen=True, slots=True)
class Ending:
    """An id that has just become final, for whoever wakes the client."""

    instruction_id: uuid.UUID
    #: The reply queues of those who wait for it.
    reply_to: tuple[str, ...]
    released: tuple[Released, ...] = ()


def commit_outcome(
    session: Session, instruction: Instruction, envelope: Envelope
) -> tuple[Released, ...]:
    """Set the outcome of a locked row that has none; the turn behind it, if any, may go on."""
    instruction.outcome = dict(envelope)
    instruction.state = "executed"
    now = func.now()
    instruction.executed_at = now
    instruction.published_at = now
    instruction.wait_reason = None
    user = envelope["data"].get("user")
    if isinstance(user, dict) and not instruction.user_ids:
        instruction.user_ids = [user["user_id"]]  # USER_CREATE: the user is its own from now on
    if instruction.turn is None:
        return ()
    instruction.turn = "done"
    session.flush()
    return release_next_turn(session, instruction.chat_id)


def release_next_turn(session: Session, chat_id: int | None) -> tuple[Released, ...]:
    """Let the chat's first waiting turn go on, unless another is active or on its way already."""
    if chat_id is None:
        return ()
    # The chat's lock orders this against a turn that is just finding out that it must wait.
    session.execute(select(Chat.id).where(Chat.id == chat_id).with_for_update(key_share=True))
    first = (
        select(Instruction.id)
        .where(Instruction.chat_id == chat_id, Instruction.turn.in_(("queued", "active")))
        .order_by(Instruction.seq)
        .limit(1)
        .scalar_subquery()
    )
    rows = session.execute(
        update(Instruction)
        .where(
            Instruction.id == first,
            Instruction.turn == "queued",
            Instruction.state == "waiting",
            Instruction.wait_reason == "turn",
        )
        .values(state="decoded", wait_reason=None, published_at=func.now())
        .returning(Instruction.id, Instruction.type)
        .execution_options(synchronize_session=False)
    )
    return tuple(Released(row.id, row.type) for row in rows)


#: One statement: the end of the instruction, and the record of it for every user who wants one.
_FINALISE = text(
    """
    WITH ended AS (
        UPDATE instructions
           SET state = 'final',
               final_at = now(),
               outcome = coalesce(outcome, CAST(:fallback AS jsonb)),
               wait_reason = NULL,
               turn = CASE WHEN turn IS NULL THEN NULL ELSE 'done' END
         WHERE id = :id
           AND final_at IS NULL
           AND (outcome IS NOT NULL OR CAST(:fallback AS jsonb) IS NOT NULL)
        RETURNING id, type, chat_id, user_ids, submitted_at, final_at, outcome, reply_to, turn
    ), kept AS (
        INSERT INTO records
               (user_id, instruction_id, type, chat_id, outcome, submitted_at, finished_at)
        SELECT users.id, ended.id, ended.type, ended.chat_id,
               coalesce(ended.outcome #>> '{error,code}', 'success'),
               ended.submitted_at, ended.final_at
          FROM ended JOIN users ON users.id = ANY (ended.user_ids) AND users.recording
        ON CONFLICT DO NOTHING
    ), waited AS (
        DELETE FROM waiters USING ended WHERE waiters.instruction_id = ended.id
        RETURNING waiters.queue
    )
    SELECT reply_to, turn, chat_id, ARRAY(SELECT queue FROM waited) AS waiters FROM ended
    """
)


def finalise(
    session: Session,
    instruction_id: uuid.UUID,
    otherwise: LLMChatLinkerError | None = None,
    stage: Stage = "store",
) -> Ending | None:
    """Make the id final; None when it was already, or has no outcome and ``otherwise`` is None.

    ``otherwise``: how it ends where no outcome was committed.
    """
    envelope = None if otherwise is None else failure(str(instruction_id), otherwise, stage)
    row = session.execute(
        _FINALISE,
        {"id": instruction_id, "fallback": None if envelope is None else json.dumps(envelope)},
    ).first()
    if row is None:
        return None
    released: tuple[Released, ...] = ()
    if otherwise is not None and row.turn is not None:
        released = release_next_turn(session, row.chat_id)
    queues = [row.reply_to, *row.waiters] if row.reply_to else row.waiters
    return Ending(instruction_id, tuple(dict.fromkeys(queues)), released)
