"""Ending generations from outside: LLM_RESPONSE_CANCEL, and what revoking and newer turns share with it.

A cancel takes effect where it is requested, in the requester's process: what is not being called for
ends there and then. The worker that is in a call sees the request within 0.3 s, and ends it itself.
"""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction, Message
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import failure
from llmchatlinker.errors import InvalidData, LLMChatLinkerError, NotFound
from llmchatlinker.instruction_data.llm import LLMResponseCancel
from llmchatlinker.outcomes import commit_outcome
from llmchatlinker.streaming import store
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.closing import close_call, conclude, has_live_call, stopped
from llmchatlinker.units.handling import Ended, GeneralWay
from llmchatlinker.units.views import message_view

#: Seconds that LLM_RESPONSE_CANCEL waits for the worker that holds the call, and between two looks.
PATIENCE = 1.8
INTERVAL = 0.05


def request(
    session: Session, instruction_id: uuid.UUID, reason: str, aftermath: Aftermath
) -> Instruction | None:
    """Have a generation ended; ``reason``: ``cancelled``, ``interrupted`` or ``rolled_back``.

    Returns the instruction, locked; None where there is none. Nothing happens to what has its outcome,
    or is no generation.
    """
    instruction = session.get(Instruction, instruction_id, with_for_update=True)
    if instruction is None or instruction.turn is None or instruction.final_at is not None:
        return instruction
    if instruction.outcome is not None:
        return instruction
    if instruction.cancel_requested is None or reason == "rolled_back":
        instruction.cancel_requested = reason
    session.flush()
    if instruction.turn == "active" and has_live_call(session, instruction.id):
        return instruction
    closing = stopped(instruction.cancel_requested)
    ended = Ended({}, closing.error)
    if instruction.turn == "active":
        close_call(session, instruction.id)
        ended = conclude(session, instruction.id, instruction, closing, aftermath)
    assert ended.error is not None
    envelope = failure(str(instruction.id), ended.error, "execute", ended.data)
    aftermath.released += commit_outcome(session, instruction, envelope)
    aftermath.concluded.append(instruction.id)
    return instruction


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be cancelled."""

    instruction_id: uuid.UUID


class Cancel(GeneralWay):
    """LLM_RESPONSE_CANCEL. Its effect came with its submission; here is what has become of it."""

    def claim(
        self,
        session: Session,
        instruction: Instruction,
        data: LLMResponseCancel,
        worker: str,
        aftermath: Aftermath,
    ) -> Target:
        """Request it once more: the submitter may have died before it could."""
        target_id = uuid.UUID(data.instruction_id)
        target = request(session, target_id, "cancelled", aftermath)
        if target is None or target.state == "withdrawn":
            raise NotFound(
                f"There is no instruction {data.instruction_id}.",
                {"field": "instruction_id", "value": data.instruction_id},
            )
        if target.turn is None:
            problem = f"is of type {target.type}; only generations can be cancelled"
            raise InvalidData(
                f"instruction_id {problem}.",
                {"fields": [{"field": "instruction_id", "problem": problem}]},
            )
        return Target(target_id)

    def perform(self, work: Target) -> None:
        """Wait a little for the worker that holds the call."""
        end = time.monotonic() + PATIENCE
        values = {"id": str(work.instruction_id)}
        look = "SELECT outcome IS NULL FROM instructions WHERE id = %(id)s"
        while time.monotonic() < end:
            rows = database().statement(look, values)
            if not rows or not rows[0][0]:
                return
            threading.Event().wait(INTERVAL)

    def settle(
        self,
        session: Session,
        instruction: Instruction | None,
        work: Target,
        answer: LLMChatLinkerError | None,
        aftermath: Aftermath,
    ) -> Ended:
        """The response as far as it came, and what has become of it in words."""
        if answer is not None:
            return Ended({}, answer)
        target = session.get(Instruction, work.instruction_id)
        if target is None or target.outcome is None:
            response = _so_far(session, work.instruction_id)
            return Ended({"llm_response": response}, None, "The response is being cancelled.")
        response = target.outcome["data"].get("llm_response")
        since = None if instruction is None else instruction.submitted_at
        before = since is not None and target.executed_at is not None and target.executed_at < since
        return Ended({"llm_response": response}, None, _words(target.outcome, response, before))


def _words(outcome: dict[str, Any], response: Any, before: bool) -> str:
    code = outcome.get("error", {}).get("code")
    if code is None:
        return "The response was complete already; nothing was cancelled."
    if code != "cancelled":
        return f"The response had ended already, with {code}; nothing was cancelled."
    if before:
        return "The response was cancelled already."
    return "Response cancelled." if response else "Response cancelled before it began."


def _so_far(session: Session, instruction_id: uuid.UUID) -> dict[str, Any] | None:
    message = session.scalars(
        select(Message).where(
            Message.instruction_id == instruction_id, Message.status == "generating"
        )
    ).first()
    if message is None:
        return None
    said = store.partial(session, instruction_id)
    view = message_view(message) | {"content": said.content}
    return view | ({"reasoning": said.reasoning} if said.reasoning else {})


def open_turns_before(session: Session, chat_id: int, instruction_id: uuid.UUID) -> list[uuid.UUID]:
    """The chat's turns that were submitted before this instruction and have no outcome, in order."""
    seq = select(Instruction.seq).where(Instruction.id == instruction_id).scalar_subquery()
    query = select(Instruction.id).where(
        Instruction.chat_id == chat_id,
        Instruction.turn.in_(("queued", "active")),
        Instruction.outcome.is_(None),
        Instruction.final_at.is_(None),
        Instruction.deadline_at > func.clock_timestamp(),
        Instruction.seq < seq,
    )
    return list(session.scalars(query.order_by(Instruction.seq)))
