"""execute, where the work is a call of a provider: claim, call, settle and complete.

The call is made without any transaction; what is before and after it has one each.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy.orm import Session

from llmchatlinker import leases
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import Envelope, failure, success
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType
from llmchatlinker.orchestrator import publish_released
from llmchatlinker.outcomes import commit_outcome
from llmchatlinker.stage_rules import as_error, due, has_outcome, locked, run_stage
from llmchatlinker.turns import Released
from llmchatlinker.units.control import parse
from llmchatlinker.units.handling import Held, Parked, ProviderHandler, Refused


def execute_with_provider(
    instruction_id: uuid.UUID, spec: InstructionType, handler: ProviderHandler, worker: str
) -> bool:
    """Execute an instruction whose work is a call of a provider; returns whether the chain goes on."""
    claimed: list[Any] = []
    delivery = f"{worker} {uuid.uuid4()}"  # tells this delivery from every other one

    def claim(session: Session) -> tuple[Released, ...]:
        claimed.clear()
        instruction = due(session, instruction_id, "decoded", spec)
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

    if not run_stage(instruction_id, "execute", claim):
        return False
    if not claimed:
        return has_outcome(instruction_id)
    work = claimed[0]
    if isinstance(work, Held):
        return False
    with leases.held(instruction_id):
        answer: Any
        try:
            answer = handler.perform(work)
        except Exception as error:
            answer = as_error(error, instruction_id, "execute")
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
        instruction = locked(session, instruction_id)
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
        reason = as_error(error, instruction_id, "execute")
        return _complete(instruction_id, spec, handler, work, answer, reason)
    return True
