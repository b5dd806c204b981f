"""How a generation ends: its message, its last events, its place in the chat. All in one transaction."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Attempt, Chat, Event, Instruction, Message
from llmchatlinker.envelope import failure, restored, success
from llmchatlinker.errors import Cancelled, LLMChatLinkerError, NotFound
from llmchatlinker.streaming import store
from llmchatlinker.streaming.events import USAGE, ending
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.turns import Aftermath, Released, release_next_turn
from llmchatlinker.units.handling import Ended
from llmchatlinker.units.ledger import count_in_doubt
from llmchatlinker.units.views import message_view

#: Why a generation was ended from outside, as its client reads it.
REASONS = {
    "cancelled": "The generation was cancelled.",
    "interrupted": "The generation was interrupted by a newer turn of its chat.",
    "rolled_back": "The turn was rolled back by a newer turn of its chat.",
}


class Said(Protocol):
    """What was said: an answer, or as much of one as came."""

    @property
    def content(self) -> str:
        """The text."""

    @property
    def reasoning(self) -> str | None:
        """The reasoning, where there is any."""

    @property
    def tool_calls(self) -> list[Any] | None:
        """The tool calls, where there are any."""


@dataclass(frozen=True, slots=True)
class Closing:
    """How it ends. ``error``: of the envelope; None where the answer counts as one."""

    status: str
    finish_reason: str | None
    error: LLMChatLinkerError | None = None


def stopped(reason: str) -> Closing:
    """Ended from outside; ``reason``: what was requested (``cancel_requested``)."""
    return Closing("cancelled", reason, Cancelled(REASONS[reason], {"reason": reason}))


def conclude(
    session: Session,
    instruction_id: uuid.UUID,
    instruction: Instruction | None,
    closing: Closing,
    aftermath: Aftermath,
    *,
    said: Said | None = None,
    usage: dict[str, Any] | None = None,
    tail: Tail | None = None,
    attempt_id: int | None = None,
) -> Ended:
    """Close the answer's message and the stream; returns what the instruction ends with.

    ``said``: None for what is stored of it. Where the instruction has its outcome already, the last
    event tells that one. Where the chat is gone, so is everything that was said.
    """
    if said is None:
        said = store.partial(session, instruction_id)
    message = _close_message(session, instruction_id, closing, said, usage)
    if message is None or message.erased:
        session.execute(delete(Event).where(Event.instruction_id == instruction_id))
        gone = NotFound("Something that the instruction refers to was deleted meanwhile.")
        failed = closing.error is not None and not isinstance(closing.error, Cancelled)
        return Ended({}, closing.error if failed else gone)
    if instruction is not None and instruction.cancel_requested == "rolled_back":
        _hide(session, instruction, message)
    ended = Ended({"llm_response": message_view(message)}, closing.error)
    events = [] if not usage or usage["total_tokens"] is None else [{"type": USAGE, "usage": usage}]
    events.append(ending(_envelope(instruction, ended, str(instruction_id))))
    if tail is None:
        first = store.append(session, instruction_id, attempt_id, events)
    else:
        first, events = store.append_tail(session, instruction_id, attempt_id, tail, events)
    aftermath.events.append((instruction_id, first, events))
    return ended


def _envelope(instruction: Instruction | None, ended: Ended, text: str) -> Any:
    if instruction is not None and instruction.outcome is not None:
        return {**restored(instruction.outcome), "data": ended.data}
    if ended.error is not None:
        return failure(text, ended.error, "execute", ended.data)
    return success(text, ended.data)


def _close_message(
    session: Session,
    instruction_id: uuid.UUID,
    closing: Closing,
    said: Said,
    usage: dict[str, Any] | None,
) -> Message | None:
    """The answer's message, closed; None where it is gone. An erased one stays empty."""
    values: dict[str, Any] = {
        "content": case((Message.erased, ""), else_=said.content),
        "status": closing.status,
        "finish_reason": closing.finish_reason,
        "usage": usage,
    }
    if said.reasoning is not None:
        values["reasoning"] = case((Message.erased, None), else_=said.reasoning)
    if said.tool_calls is not None:
        values["tool_calls"] = said.tool_calls
    message = session.scalars(
        update(Message)
        .where(Message.instruction_id == instruction_id, Message.status == "generating")
        .values(**values)
        .returning(Message)
        .execution_options(synchronize_session=False, populate_existing=True)
    ).first()
    if message is not None and message.erased and message.tool_calls is not None:
        message.tool_calls = None
    return message


def _hide(session: Session, instruction: Instruction, answer: Message) -> None:
    """Take the turn out of the history, and the chat back to where it was before."""
    session.execute(
        update(Message)
        .where(
            Message.id.in_((answer.id, answer.parent_id)),
            Message.instruction_id == instruction.id,  # a regeneration's question is not its own
        )
        .values(hidden=True)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(Chat)
        .where(Chat.id == answer.chat_id, Chat.active_message_id == answer.id)
        .values(active_message_id=instruction.previous_message_id)
        .execution_options(synchronize_session=False)
    )


def has_live_call(session: Session, instruction_id: uuid.UUID) -> bool:
    """Whether some worker is calling a provider for it, and alive."""
    query = select(Attempt.id).where(
        Attempt.instruction_id == instruction_id,
        Attempt.status == "started",
        Attempt.lease_until > func.clock_timestamp(),
    )
    return session.scalar(query.limit(1)) is not None


def close_what_is_left(
    session: Session, instruction_id: uuid.UUID, chat_id: int | None
) -> Aftermath:
    """Close what an instruction that has ended elsewhere has left open, and let the next turn go on.

    Not while a worker is calling: that worker is told to stop, and closes it itself.
    """
    aftermath = Aftermath()
    instruction = session.get(
        Instruction, instruction_id, with_for_update=True, populate_existing=True
    )
    if has_live_call(session, instruction_id):
        return aftermath
    close_call(session, instruction_id)
    outcome = None if instruction is None else instruction.outcome
    code = outcome["error"]["code"] if outcome and "error" in outcome else "failed"
    status = "cancelled" if code == "cancelled" else "failed"
    if _is_generating(session, instruction_id):
        conclude(session, instruction_id, instruction, Closing(status, code), aftermath)
    if instruction is not None and instruction.turn is not None:
        instruction.turn = "done"
        session.flush()
    aftermath.released += release_next_turn(session, chat_id)
    return aftermath


def close_call(session: Session, instruction_id: uuid.UUID) -> None:
    """The worker that made this call is dead: nobody knows how it went."""
    closed = session.execute(
        update(Attempt)
        .where(Attempt.instruction_id == instruction_id, Attempt.status == "started")
        .values(status="in_doubt", error_code="in_doubt", finished_at=func.clock_timestamp())
        .returning(Attempt.provider_name, Attempt.llm_name)
        .execution_options(synchronize_session=False)
    )
    for provider_name, llm_name in closed:
        count_in_doubt(provider_name, llm_name)


def _is_generating(session: Session, instruction_id: uuid.UUID) -> bool:
    query = select(Message.id).where(
        Message.instruction_id == instruction_id, Message.status == "generating"
    )
    return session.scalar(query.limit(1)) is not None


def release_after(session: Session, instruction: Instruction | None) -> tuple[Released, ...]:
    """The place of an instruction that ended elsewhere, while its call was still going on."""
    if instruction is None or instruction.turn != "active":
        return ()
    instruction.turn = "done"
    session.flush()
    return release_next_turn(session, instruction.chat_id)
