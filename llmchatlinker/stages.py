"""The three stages as functions of an instruction id. Each may be delivered twice.

Each returns whether the chain goes on. A stage that finds its work done goes on from it; one whose
row is missing, withdrawn, parked or in another worker's hands ends there.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from llmchatlinker import leases
from llmchatlinker.db.models import Instruction
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import Envelope, Stage, failure, success
from llmchatlinker.errors import (
    Conflict,
    DeadlineExceeded,
    InternalError,
    LLMChatLinkerError,
    NotFound,
)
from llmchatlinker.instructions import InstructionType, instruction_type
from llmchatlinker.orchestrator import announce, publish_released
from llmchatlinker.outcomes import Released, commit_outcome, finalise
from llmchatlinker.units.control import chat_of, parse, resolve, users_of
from llmchatlinker.units.handling import Held, Parked, ProviderHandler, Refused

logger = logging.getLogger(__name__)

#: What a broken constraint means to the caller: the field, and the sentence.
CONFLICTS = {
    "uq_users_username": ("username", "A user of that name exists already."),
    "uq_providers_name": ("name", "A provider of that name exists already."),
    "uq_llms_provider_id_llm_name": ("llm_name", "The provider has an LLM of that name already."),
}
_FOREIGN_KEY = "23503"


class _Closed(Exception):
    """The instruction needs no more of this stage; ``goes_on``: the next one is still due."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on


_READ = """
    SELECT type, data, state, deadline_at < clock_timestamp() FROM instructions WHERE id = %(id)s
"""

_DECODED = """
    UPDATE instructions
       SET data = %(data)s, user_ids = %(user_ids)s, chat_id = %(chat_id)s, state = 'decoded',
           decoded_at = now(), published_at = now()
     WHERE id = %(id)s AND state = 'submitted'
"""


def decode(instruction_id: uuid.UUID) -> bool:
    """Validate type and data, resolve names to ids; what is wrong becomes the outcome.

    Two statements and no transaction around them: the second compares and sets.
    """
    rows = database().statement(_READ, {"id": str(instruction_id)})
    try:
        if not rows:
            raise _Closed(_dropped(instruction_id))
        type_name, raw, state, late = rows[0]
        _check_due(instruction_id, state, "submitted", late)
        spec = instruction_type(type_name)
        values = database().run(lambda session: _decoded(session, spec, raw))
    except _Closed as closed:
        return closed.goes_on
    except Exception as error:
        return _failed(instruction_id, "decode", error)
    database().statement(_DECODED, values | {"id": str(instruction_id)})
    return True


def _decoded(session: Session, spec: InstructionType, raw: dict[str, Any]) -> dict[str, Any]:
    data = resolve(session, parse(spec.data, raw))
    return {
        "data": data.model_dump_json(exclude_none=True),
        "user_ids": users_of(session, data) or None,
        "chat_id": chat_of(session, data),
    }


def execute(instruction_id: uuid.UUID, spec: InstructionType, worker: str) -> bool:
    """Do the work of the instruction and commit it together with its outcome."""
    handler = spec.handler
    if callable(handler):
        return _stage(instruction_id, "execute", _transaction(instruction_id, spec, handler))
    return _execute_with_provider(instruction_id, spec, handler, worker)


def store(instruction_id: uuid.UUID) -> bool:
    """Make the result final under the client's id, and wake the client."""
    ending = finalise(instruction_id)
    if ending is not None:
        announce(ending)
    return True


def _transaction(
    instruction_id: uuid.UUID, spec: InstructionType, handler: Callable[..., dict[str, Any]]
) -> Callable[[Session], tuple[Released, ...]]:
    def work(session: Session) -> tuple[Released, ...]:
        instruction = _due(session, instruction_id, "decoded", spec)
        result = handler(session, parse(spec.data, instruction.data, decoded=True))
        return commit_outcome(session, instruction, success(str(instruction_id), result, spec.done))

    return work


def _execute_with_provider(
    instruction_id: uuid.UUID, spec: InstructionType, handler: ProviderHandler, worker: str
) -> bool:
    claimed: list[Any] = []
    delivery = f"{worker} {uuid.uuid4()}"  # tells this delivery from every other one

    def claim(session: Session) -> tuple[Released, ...]:
        claimed.clear()
        instruction = _due(session, instruction_id, "decoded", spec)
        data = parse(spec.data, instruction.data, decoded=True)
        work = handler.claim(session, instruction, data, delivery)
        if isinstance(work, Parked):
            instruction.state, instruction.wait_reason = "waiting", work.reason
            return ()
        if isinstance(work, Refused):
            envelope = failure(str(instruction_id), work.error, "execute")
            return commit_outcome(session, instruction, envelope)
        claimed.append(work)
        return ()

    if not _stage(instruction_id, "execute", claim):
        return False
    if not claimed:
        return _has_outcome(instruction_id)
    work = claimed[0]
    if isinstance(work, Held):
        return False
    with leases.held(instruction_id):
        answer: Any
        try:
            answer = handler.perform(work)
        except Exception as error:
            answer = _as_error(error, instruction_id, "execute")
        return _complete(instruction_id, spec, handler, work, answer)


def _complete(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    handler: ProviderHandler,
    work: Any,
    answer: Any,
    verdict: LLMChatLinkerError | None = None,
) -> bool:
    """Commit the answer: the ledger in any case, the rest unless the instruction has ended."""

    def settle(session: Session) -> tuple[Released, ...]:
        instruction = _locked(session, instruction_id)
        handler.settle(session, work, answer)
        if (
            instruction is None
            or instruction.final_at is not None
            or instruction.outcome is not None
        ):
            return ()
        error = answer if isinstance(answer, LLMChatLinkerError) else verdict
        envelope: Envelope
        if error is not None:
            envelope = failure(str(instruction_id), error, "execute")
        else:
            result = handler.complete(session, instruction, work, answer)
            envelope = success(str(instruction_id), result, spec.done)
        return commit_outcome(session, instruction, envelope)

    try:
        publish_released(database().run(settle))
    except Exception as error:
        if verdict is not None:
            raise
        reason = _as_error(error, instruction_id, "execute")
        return _complete(instruction_id, spec, handler, work, answer, reason)
    return True


def _stage(
    instruction_id: uuid.UUID, stage: Stage, work: Callable[[Session], tuple[Released, ...]]
) -> bool:
    """Run a stage's work in a transaction; what it raises becomes the outcome in another."""
    try:
        released = database().run(work)
    except _Closed as closed:
        return closed.goes_on
    except Exception as error:
        return _failed(instruction_id, stage, error)
    publish_released(released)
    return True


def _failed(instruction_id: uuid.UUID, stage: Stage, error: Exception) -> bool:
    """Make ``error`` the outcome; the chain goes on to store it."""
    reason = _as_error(error, instruction_id, stage)
    publish_released(database().run(lambda session: _fail(session, instruction_id, reason, stage)))
    return True


def _fail(
    session: Session, instruction_id: uuid.UUID, error: LLMChatLinkerError, stage: Stage
) -> tuple[Released, ...]:
    instruction = _locked(session, instruction_id)
    if instruction is None or instruction.final_at is not None or instruction.outcome is not None:
        return ()
    return commit_outcome(session, instruction, failure(str(instruction_id), error, stage))


def _locked(session: Session, instruction_id: uuid.UUID) -> Instruction | None:
    return session.get(Instruction, instruction_id, with_for_update=True)


def _due(
    session: Session, instruction_id: uuid.UUID, state: str, spec: InstructionType | None = None
) -> Instruction:
    """The locked row if this stage is due; raises _Closed if it isn't, DeadlineExceeded if late."""
    row = session.execute(
        select(Instruction, Instruction.deadline_at < func.clock_timestamp())
        .where(Instruction.id == instruction_id)
        .with_for_update()
    ).first()
    if row is None:
        raise _Closed(_dropped(instruction_id))
    instruction: Instruction = row[0]
    if spec and instruction.type != spec.name:
        raise _Closed(_dropped(instruction_id))
    _check_due(instruction_id, instruction.state, state, row[1])
    return instruction


def _check_due(instruction_id: uuid.UUID, state: str, wanted: str, late: bool) -> None:
    if state == "withdrawn":
        raise _Closed(_dropped(instruction_id))
    if state == "waiting":
        raise _Closed(False)  # whoever ends its wait publishes it anew
    if state != wanted:
        raise _Closed(True)  # delivered twice: go on from what is there
    if late:
        raise DeadlineExceeded


def _has_outcome(instruction_id: uuid.UUID) -> bool:
    def look(session: Session) -> bool:
        query = select(Instruction.outcome.is_not(None)).where(Instruction.id == instruction_id)
        return bool(session.scalar(query))

    return database().run(look)


def _dropped(instruction_id: uuid.UUID) -> bool:
    logger.info(
        "Instruction %s was withdrawn, never submitted, or is of another type: message dropped",
        instruction_id,
    )
    return False


def _as_error(error: Exception, instruction_id: uuid.UUID, stage: Stage) -> LLMChatLinkerError:
    """A failure as the client sees it. A defect of ours goes into the log with its traceback."""
    if isinstance(error, LLMChatLinkerError):
        return error
    if isinstance(error, IntegrityError):
        known = _broken_constraint(error)
        if known is not None:
            return known
    logger.error("Instruction %s: %s failed with a defect", instruction_id, stage, exc_info=error)
    return InternalError(details={"exception": type(error).__name__})


def _broken_constraint(error: IntegrityError) -> LLMChatLinkerError | None:
    diagnosis = getattr(error.orig, "diag", None)
    name = getattr(diagnosis, "constraint_name", None) or ""
    if name in CONFLICTS:
        field, sentence = CONFLICTS[name]
        return Conflict(sentence, {"field": field})
    if getattr(error.orig, "pgcode", None) == _FOREIGN_KEY:
        return NotFound("Something that the instruction refers to was deleted meanwhile.")
    return None
