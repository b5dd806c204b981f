"""What all stages have in common: whether one is due, and what becomes of its failure."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable

import psycopg2
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction
from llmchatlinker.db.sessions import database
from llmchatlinker.defects import log_defect
from llmchatlinker.envelope import Stage, failure
from llmchatlinker.errors import (
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidData,
    LLMChatLinkerError,
    NotFound,
)
from llmchatlinker.instructions import InstructionType
from llmchatlinker.orchestrator import publish_released
from llmchatlinker.outcomes import commit_outcome, set_outcome
from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.turns import Released
from llmchatlinker.units.closing import close_what_is_left

logger = logging.getLogger(__name__)

#: What a broken constraint means to the caller: the field, and the sentence.
CONFLICTS = {
    "uq_users_username": ("username", "A user of that name exists already."),
    "uq_providers_name": ("name", "A provider of that name exists already."),
    "uq_llms_provider_id_llm_name": ("llm_name", "The provider has an LLM of that name already."),
}
_FOREIGN_KEY = "23503"


class Closed(Exception):
    """The instruction needs no more of this stage; ``goes_on``: the next one is still due."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        notes.outcome = "repeated" if goes_on else "dropped"


def run_stage(instruction_id: uuid.UUID, stage: Stage, transaction: Callable[[], object]) -> bool:
    """Run a stage's transaction; what its work raises becomes the outcome in another."""
    try:
        transaction()
    except Closed as closed:
        return closed.goes_on
    except Exception as error:
        return failed(instruction_id, stage, error)
    return True


def failed(instruction_id: uuid.UUID, stage: Stage, error: Exception) -> bool:
    """Make ``error`` the outcome; the chain goes on to store it."""
    reason = as_error(error, instruction_id, stage)
    notes.outcome = reason.code
    publish_released(database().run(lambda session: _fail(session, instruction_id, reason, stage)))
    return True


def _fail(
    session: Session, instruction_id: uuid.UUID, error: LLMChatLinkerError, stage: Stage
) -> tuple[Released, ...]:
    instruction = locked(session, instruction_id)
    if instruction is None or instruction.final_at is not None or instruction.outcome is not None:
        return ()
    envelope = failure(str(instruction_id), error, stage)
    if instruction.turn != "active":
        return commit_outcome(session, instruction, envelope)
    set_outcome(instruction, envelope)
    session.flush()
    return tuple(close_what_is_left(session, instruction_id, instruction.chat_id).released)


def locked(session: Session, instruction_id: uuid.UUID) -> Instruction | None:
    return session.get(Instruction, instruction_id, with_for_update=True)


def due(
    session: Session, instruction_id: uuid.UUID, state: str, spec: InstructionType | None = None
) -> Instruction:
    """The locked row if this stage is due; raises Closed if it isn't, DeadlineExceeded if late."""
    row = session.execute(
        select(Instruction, Instruction.deadline_at < func.clock_timestamp())
        .where(Instruction.id == instruction_id)
        .with_for_update()
    ).first()
    if row is None:
        raise Closed(dropped(instruction_id))
    instruction: Instruction = row[0]
    if spec and instruction.type != spec.name:
        raise Closed(dropped(instruction_id))
    check_due(instruction_id, instruction.state, state, row[1])
    return instruction


def check_due(instruction_id: uuid.UUID, state: str, wanted: str, late: bool) -> None:
    if state == "withdrawn":
        raise Closed(dropped(instruction_id))
    if state == "waiting":
        raise Closed(False)  # whoever ends its wait publishes it anew
    if state != wanted:
        raise Closed(True)  # delivered twice: go on from what is there
    if late:
        raise DeadlineExceeded


def check_size(outcome: str) -> None:
    """InvalidData for a result that is too large; the work is rolled back."""
    limit = get_settings().result_bytes
    if len(outcome) > limit:
        raise InvalidData(
            f"The result would be {len(outcome)} bytes long; a result may have {limit}. Ask for less "
            "at once: limit says how many, after and before go on from there.",
            {"bytes": len(outcome), "limit": limit},
        )


def has_outcome(instruction_id: uuid.UUID) -> bool:
    def look(session: Session) -> bool:
        query = select(Instruction.outcome.is_not(None)).where(Instruction.id == instruction_id)
        return bool(session.scalar(query))

    return database().run(look)


def dropped(instruction_id: uuid.UUID) -> bool:
    logger.info(
        "Instruction %s was withdrawn, never submitted, or is of another type: message dropped",
        instruction_id,
    )
    return False


def as_error(error: Exception, instruction_id: uuid.UUID, stage: Stage) -> LLMChatLinkerError:
    """A failure as the client sees it. A defect of ours goes into the log with its traceback."""
    if isinstance(error, LLMChatLinkerError):
        return error
    if isinstance(error, IntegrityError | psycopg2.IntegrityError):
        known = _broken_constraint(error)
        if known is not None:
            return known
    log_defect(
        logger, "Instruction %s: %s failed with a defect", instruction_id, stage, error=error
    )
    return InternalError(details={"exception": type(error).__name__})


def _broken_constraint(
    error: IntegrityError | psycopg2.IntegrityError,
) -> LLMChatLinkerError | None:
    original = error.orig if isinstance(error, IntegrityError) else error
    diagnosis = getattr(original, "diag", None)
    name = getattr(diagnosis, "constraint_name", None) or ""
    if name in CONFLICTS:
        field, sentence = CONFLICTS[name]
        return Conflict(sentence, {"field": field})
    if getattr(original, "pgcode", None) == _FOREIGN_KEY:
        return NotFound("Something that the instruction refers to was deleted meanwhile.")
    return None
