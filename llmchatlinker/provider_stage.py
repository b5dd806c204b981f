"""execute, where the work is a call of a provider: claim, perform, settle, and perhaps once more.

The call is made without any transaction; what is before and after it has one each.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import Session

from llmchatlinker import leases
from llmchatlinker.after_commit import follow
from llmchatlinker.db.driver import IN_THE_WAY
from llmchatlinker.db.models import Instruction
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import failure, success
from llmchatlinker.instructions import InstructionType
from llmchatlinker.outcomes import commit_outcome
from llmchatlinker.stage_rules import Closed, as_error, due, failed, locked
from llmchatlinker.stopping import stopping
from llmchatlinker.telemetry.calls import observe_call
from llmchatlinker.telemetry.notes import note_handled
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.control import parse
from llmchatlinker.units.handling import (
    Again,
    Ended,
    HandedBack,
    Held,
    Parked,
    ProviderHandler,
)


def execute_with_provider(
    instruction_id: uuid.UUID, spec: InstructionType, handler: ProviderHandler, worker: str
) -> bool:
    """Execute an instruction whose work is a call of a provider; returns whether the chain goes on."""
    delivery = f"{worker} {uuid.uuid4()}"  # tells this delivery from every other one
    while True:
        goes_on, work = _claim(instruction_id, spec, handler, delivery)
        if work is None:
            return goes_on
        with leases.held(instruction_id):
            answer: Any
            try:
                answer = handler.perform(work)
            except Exception as error:
                answer = as_error(error, instruction_id, "execute")
            settled = _settle(instruction_id, spec, handler, work, answer)
        observe_call(work, answer)
        if isinstance(settled, bool):
            return settled
        threading.Event().wait(settled.seconds)


def _run(
    straight: Callable[[], tuple[Any, Aftermath] | None],
    general: Callable[[Session], tuple[Any, Aftermath]],
) -> tuple[Any, Aftermath]:
    """The straight way; where that is not open, the other in a transaction of its own."""
    with suppress(*IN_THE_WAY):
        done = straight()
        if done is not None:
            return done
    return database().run(general)


def _claim(
    instruction_id: uuid.UUID, spec: InstructionType, handler: ProviderHandler, delivery: str
) -> tuple[bool, Any]:
    """The work, or None and whether the chain goes on."""

    def straight() -> tuple[Any, Aftermath] | None:
        return handler.claim_straight(instruction_id, delivery)

    def general(session: Session) -> tuple[Any, Aftermath]:
        aftermath = Aftermath()
        instruction = due(session, instruction_id, "decoded", spec)
        data = parse(spec.data, instruction.data, decoded=True)
        claimed = handler.claim(session, instruction, data, delivery, aftermath)
        _write(session, instruction, spec, claimed, aftermath)
        return claimed, aftermath

    try:
        claimed, aftermath = _run(straight, general)
    except Closed as closed:
        return closed.goes_on, None
    except Exception as error:
        return failed(instruction_id, "execute", error), None
    follow(aftermath)
    note_handled(claimed)
    if isinstance(claimed, Ended | Parked | Held):
        return isinstance(claimed, Ended), None
    return True, claimed


def _settle(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    handler: ProviderHandler,
    work: Any,
    answer: Any,
    *,
    again: bool = True,
) -> Again | bool:
    """Commit how the call ended; whether the chain goes on, or when it is to be claimed again."""

    def straight() -> tuple[Any, Aftermath] | None:
        aftermath = handler.settle_straight(work, answer, spec.done)
        return None if aftermath is None else (Ended({}), aftermath)  # which is written already

    def general(session: Session) -> tuple[Any, Aftermath]:
        aftermath = Aftermath()
        instruction = locked(session, instruction_id)
        settled = handler.settle(session, instruction, work, answer, aftermath)
        if instruction is None or instruction.outcome is not None:
            return True, aftermath
        _write(session, instruction, spec, settled, aftermath)
        return settled, aftermath

    try:
        settled, aftermath = _run(straight, general)
    except Exception as error:
        if not again:
            raise
        reason = as_error(error, instruction_id, "execute")
        return _settle(instruction_id, spec, handler, work, reason, again=False)
    follow(aftermath)
    note_handled(settled)
    if isinstance(settled, HandedBack):
        stopping.give_back()
    if isinstance(settled, Again | bool):
        return settled
    return isinstance(settled, Ended)


def _write(
    session: Session, instruction: Instruction, spec: InstructionType, what: Any, after: Aftermath
) -> None:
    """Write into the locked row what becomes of the instruction."""
    if isinstance(what, Parked):
        park(instruction, what, after)
    elif isinstance(what, HandedBack):
        # In good order: that its message comes again speaks of no crash. Its next start is the first.
        instruction.starts, instruction.starts_of = 0, instruction.state
    elif isinstance(what, Ended):
        text = str(instruction.id)
        if what.error is not None:
            envelope = failure(text, what.error, "execute", what.data)
        else:
            envelope = success(text, what.data, what.message or spec.done)
        after.released += commit_outcome(session, instruction, envelope)


def park(instruction: Instruction, why: Parked, aftermath: Aftermath) -> None:
    """Let the instruction wait as a row."""
    instruction.state, instruction.wait_reason = "waiting", why.reason
    instruction.provider_id = why.provider_id
    instruction.starts, instruction.starts_of = 0, None  # it has survived so far
    if why.reason != "turn":  # so that the index has it
        length = func.make_interval(0, 0, 0, 0, 0, 0, why.seconds or 0)
        instruction.not_before = func.clock_timestamp() + length
    if why.seconds is not None:
        aftermath.alarms.append(why.seconds)
