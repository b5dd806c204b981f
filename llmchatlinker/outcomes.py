"""The two ends of an instruction: its outcome (the work is committed) and its finality.

``commit_outcome`` belongs into the transaction that did the work. ``finalise`` is the only way to an
end: by compare-and-set, first wins, from the outcome where there is one.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import Envelope, Stage, failure
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.telemetry.switch import metrics
from llmchatlinker.turns import Aftermath, Released, release_next_turn
from llmchatlinker.units.closing import close_what_is_left

#: Bytes of an envelope, as JSON, that goes to its client together with the hint.
SMALL = 3_000


@dataclass(frozen=True, slots=True)
class Ending:
    """An id that has just become final, for whoever wakes the client."""

    instruction_id: uuid.UUID
    #: The reply queues of those who wait for it.
    reply_to: tuple[str, ...]
    #: Its type, and ``success`` or the error's code.
    type: str
    code: str
    final_at: datetime | None = None
    #: The envelope as JSON, where it is small.
    envelope: str | None = field(default=None, repr=False)
    #: The turn that may go on, and the last events of a response that ended with it.
    aftermath: Aftermath = field(default_factory=Aftermath)


def commit_outcome(
    session: Session, instruction: Instruction, envelope: Envelope
) -> tuple[Released, ...]:
    """Set the outcome of a locked row that has none; the turn behind it, if any, may go on."""
    set_outcome(instruction, envelope)
    if instruction.turn is None:
        return ()
    instruction.turn = "done"
    session.flush()
    return release_next_turn(session, instruction.chat_id)


def _without_secrets(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` less what is stored, encrypted, where it belongs, or was refused in the clear."""
    settings = data.get("settings")
    if isinstance(settings, dict) and "headers" in settings:
        data = data | {"settings": {k: v for k, v in settings.items() if k != "headers"}}
    return {k: v for k, v in data.items() if k != "api_key"} if "api_key" in data else data


def set_outcome(instruction: Instruction, envelope: Envelope) -> None:
    """The same, but the turn keeps its place: its call may still be going on."""
    instruction.outcome = dict(envelope)
    instruction.state = "executed"
    now = func.now()
    instruction.executed_at = now
    instruction.published_at = now
    instruction.wait_reason = instruction.not_before = None
    user = envelope["data"].get("user")
    if isinstance(user, dict) and not instruction.user_ids:
        instruction.user_ids = [user["user_id"]]  # USER_CREATE: the user is its own from now on
    instruction.data = _without_secrets(instruction.data)


#: One statement: the end of the instruction, the record of it for every user who wants one, and who
#: is to be woken. With an outcome that was committed before, it does not wait for the disk: after a
#: crash of PostgreSQL it may be done again, with the same outcome (docs/adr/0039).
_FINALISE = """
    WITH ended AS (
        UPDATE instructions
           SET state = 'final',
               final_at = now(),
               outcome = coalesce(outcome, CAST(%(fallback)s AS jsonb)),
               data = data - 'api_key' #- '{settings,headers}',
               wait_reason = NULL,
               not_before = NULL,
               -- An active turn that ends from outside keeps its place until its call is over.
               turn = CASE WHEN turn = 'queued' THEN 'done' ELSE turn END
         WHERE id = %(id)s
           AND final_at IS NULL
           AND (outcome IS NOT NULL OR CAST(%(fallback)s AS jsonb) IS NOT NULL)
        RETURNING id, type, chat_id, user_ids, submitted_at, final_at, outcome, reply_to, turn, follow
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
    SELECT reply_to, turn, chat_id, ARRAY(SELECT queue FROM waited), type,
           coalesce(outcome #>> '{error,code}', 'success'),
           extract(epoch FROM final_at - submitted_at), final_at,
           CASE WHEN pg_column_size(outcome) <= /* small */ AND NOT follow
                THEN CAST(outcome AS text) END,  -- who follows has had it as events
           CASE WHEN CAST(%(fallback)s AS jsonb) IS NULL
                THEN set_config('synchronous_commit', 'off', true) END
      FROM ended
""".replace("/* small */", str(SMALL))


def finalise(
    instruction_id: uuid.UUID,
    otherwise: LLMChatLinkerError | None = None,
    stage: Stage = "store",
    *,
    patience: float | None = None,
) -> Ending | None:
    """Make the id final; None when it was already, or has no outcome and ``otherwise`` is None.

    ``otherwise``: how it ends where no outcome was committed. ``patience``: as of ``Database.run``.
    """
    envelope = None if otherwise is None else failure(str(instruction_id), otherwise, stage)
    fallback = None if envelope is None else json.dumps(envelope)
    values = {"id": str(instruction_id), "fallback": fallback}
    rows = database().statement(_FINALISE, values, patience=patience, prepare=True)
    if not rows:
        return None
    reply_to, turn, chat_id, waiting, type_name, code, seconds, final_at, text, _ = rows[0]
    counters = metrics()
    if counters is not None:
        counters.end(type_name, code, float(seconds))
    aftermath = Aftermath()
    if otherwise is not None and turn is not None:
        # A turn that ended without an outcome. If this process dies here, the sweeper does it.
        aftermath = database().run(
            lambda session: close_what_is_left(session, instruction_id, chat_id), patience=patience
        )
    queues = [reply_to, *waiting] if reply_to else waiting
    if text is not None and len(text.encode()) > SMALL:
        text = None  # PostgreSQL had it compressed
    return Ending(
        instruction_id, tuple(dict.fromkeys(queues)), type_name, code, final_at, text, aftermath
    )
