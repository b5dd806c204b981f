"""The LLM Manage Unit, second half: calls of providers, and the turns that they are made for.

A turn is claimed in one transaction (its place in the chat, the line in the ledger, the history),
the provider is called without any, and question, answer and outcome are committed in another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import LLM, Chat, Instruction, Message
from llmchatlinker.errors import (
    InvalidData,
    LLMChatLinkerError,
    NotFound,
    NotImplementedYet,
)
from llmchatlinker.instruction_data.llm import (
    LLMResponseCancel,
    LLMResponseGenerate,
    LLMResponseRegenerate,
)
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.registry import wire
from llmchatlinker.units import ledger
from llmchatlinker.units.context import HISTORY_LENGTH, conversation
from llmchatlinker.units.discovery import endpoint_of
from llmchatlinker.units.handling import Held, Parked, Refused
from llmchatlinker.units.lookups import (
    get_chat,
    get_llm,
    get_message,
    get_provider,
    get_user,
    require_member,
)
from llmchatlinker.units.tree import path_to
from llmchatlinker.units.views import message_view

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Turn:
    """A claimed turn: everything that its call and its messages need."""

    attempt_id: int
    kind: str
    endpoint: Endpoint
    request: ChatRequest
    chat_id: int
    user_id: int | None
    llm_id: int
    price: dict[str, float] | None
    #: The question that exists already (regenerate), or None for one that comes with the answer.
    question_id: int | None
    parent_id: int | None
    user_input: str = field(repr=False)


class _Generation:
    """What GENERATE and REGENERATE share: the turn, the ledger, the answer."""

    def claim(
        self, session: Session, instruction: Instruction, data: Any, worker: str
    ) -> Turn | Parked | Held | Refused:
        """Take the turn, unless it is somebody else's or another turn is before it."""
        if instruction.chat_id is None:
            raise NotFound("The chat is gone.", {"field": "chat_id"})
        chat = get_chat(session, instruction.chat_id, lock=True)
        earlier = ledger.earlier(session, instruction, worker)
        if earlier is not None:
            return earlier
        if _another_is_before(session, instruction):
            return Parked("turn")
        turn = self._prepare(session, chat, data, instruction, worker)
        instruction.turn = "active"
        return turn

    def _prepare(
        self, session: Session, chat: Chat, data: Any, instruction: Instruction, worker: str
    ) -> Turn:
        raise NotImplementedError  # each of the two says where its question comes from

    def perform(self, work: Turn) -> ChatAnswer:
        """One call, and only one."""
        return wire(work.kind).chat(work.endpoint, work.request, Call())

    def settle(self, session: Session, work: Turn, answer: ChatAnswer | LLMChatLinkerError) -> None:
        """Close the attempt."""
        ledger.close(session, work.attempt_id, answer, work.price)

    def complete(
        self, session: Session, instruction: Instruction, work: Turn, answer: ChatAnswer
    ) -> Result:
        """Add question and answer to the tree; the answer becomes the end of the active branch."""
        chat = get_chat(session, work.chat_id, lock=True)
        question_id = work.question_id
        if question_id is None:
            question = Message(
                chat_id=chat.id,
                parent_id=work.parent_id,
                user_id=work.user_id,
                instruction_id=instruction.id,
                role="user",
                content=work.user_input,
            )
            session.add(question)
            session.flush()
            question_id = question.id
        cost = ledger.cost(work.price, answer)
        response = Message(
            chat_id=chat.id,
            parent_id=question_id,
            user_id=work.user_id,
            instruction_id=instruction.id,
            role="assistant",
            content=answer.content,
            llm_id=session.scalar(select(LLM.id).where(LLM.id == work.llm_id)),
            llm_name=work.request.model,
            finish_reason=answer.finish_reason,
            tool_calls=answer.tool_calls,
            reasoning=answer.reasoning,
            usage={
                "prompt_tokens": answer.usage.prompt_tokens,
                "completion_tokens": answer.usage.completion_tokens,
                "total_tokens": answer.usage.total_tokens,
                "cost": None if cost is None else float(cost),
            },
        )
        session.add(response)
        session.flush()
        chat.active_message_id = response.id
        session.flush()
        return {"llm_response": message_view(response)}


class Generate(_Generation):
    """LLM_RESPONSE_GENERATE."""

    def _prepare(
        self,
        session: Session,
        chat: Chat,
        data: LLMResponseGenerate,
        instruction: Instruction,
        worker: str,
    ) -> Turn:
        get_user(session, data.user_id)
        require_member(session, chat.id, data.user_id)
        assert data.llm_id is not None
        parent_id = chat.active_message_id
        if data.parent_message_id is not None:
            parent_id = _branching_point(session, chat, data.parent_message_id)
        return _turn(
            session,
            instruction,
            chat,
            worker,
            llm_id=data.llm_id,
            parameters=data.parameters,
            user_id=data.user_id,
            parent_id=parent_id,
            question=None,
            user_input=data.user_input,
        )


class Regenerate(_Generation):
    """LLM_RESPONSE_REGENERATE."""

    def _prepare(
        self,
        session: Session,
        chat: Chat,
        data: LLMResponseRegenerate,
        instruction: Instruction,
        worker: str,
    ) -> Turn:
        message = get_message(session, data.message_id)
        question = message
        if message.role == "assistant":
            assert message.parent_id is not None
            question = get_message(session, message.parent_id)
        if question.erased:
            raise NotFound(
                f"Message {question.id} was erased.", {"field": "message_id", "value": question.id}
            )
        if data.user_id is not None:
            get_user(session, data.user_id)
            require_member(session, chat.id, data.user_id)
        llm_id = data.llm_id if data.llm_id is not None else _llm_of(session, message)
        return _turn(
            session,
            instruction,
            chat,
            worker,
            llm_id=llm_id,
            parameters=data.parameters,
            user_id=data.user_id if data.user_id is not None else question.user_id,
            parent_id=question.parent_id,
            question=question,
            user_input=question.content,
        )


def _llm_of(session: Session, message: Message) -> int:
    """The LLM that answered before: of the answer itself, or of the question's newest answer."""
    if message.role == "assistant":
        llm_id = message.llm_id
    else:
        llm_id = session.scalar(
            select(Message.llm_id)
            .where(Message.parent_id == message.id, Message.llm_id.is_not(None))
            .order_by(Message.id.desc())
            .limit(1)
        )
    if llm_id is None:
        problem = "is needed: the LLM that answered before is no longer there"
        raise InvalidData(
            f"llm_id {problem}.", {"fields": [{"field": "llm_id", "problem": problem}]}
        )
    return llm_id


def _branching_point(session: Session, chat: Chat, message_id: int) -> int | None:
    """Below which message a question goes that names ``parent_message_id``.

    An answer's id: below it. A question's id: beside it, which is how the first question is edited.
    """
    message = get_message(session, message_id, "parent_message_id")
    if message.chat_id != chat.id:
        raise NotFound(
            f"Chat {chat.id} has no message {message_id}.",
            {"field": "parent_message_id", "value": message_id},
        )
    return message.id if message.role == "assistant" else message.parent_id


def _another_is_before(session: Session, instruction: Instruction) -> bool:
    return (
        session.scalar(
            select(Instruction.id)
            .where(
                Instruction.chat_id == instruction.chat_id,
                Instruction.seq < instruction.seq,
                Instruction.turn.in_(("queued", "active")),
            )
            .limit(1)
        )
        is not None
    )


def _turn(
    session: Session,
    instruction: Instruction,
    chat: Chat,
    worker: str,
    *,
    llm_id: int,
    parameters: dict[str, Any] | None,
    user_id: int | None,
    parent_id: int | None,
    question: Message | None,
    user_input: str,
) -> Turn:
    llm = get_llm(session, llm_id)
    provider = get_provider(session, llm.provider_id)
    merged = (
        provider.settings.get("parameters", {})
        | llm.settings.get("parameters", {})
        | (parameters or {})
    )
    max_tokens = merged.get("max_tokens", merged.get("max_completion_tokens"))
    messages = conversation(
        chat.system_prompt,
        path_to(session, parent_id, HISTORY_LENGTH),
        user_input,
        llm.settings.get("context_window"),
        max_tokens if isinstance(max_tokens, int) else None,
    )
    endpoint = endpoint_of(session, instruction, provider)
    return Turn(
        attempt_id=ledger.start(session, instruction, provider, llm, user_id, worker),
        kind=provider.kind,
        endpoint=endpoint,
        request=ChatRequest(llm.llm_name, messages, merged),
        chat_id=chat.id,
        user_id=user_id,
        llm_id=llm.id,
        price=llm.settings.get("price"),
        question_id=None if question is None else question.id,
        parent_id=parent_id,
        user_input=user_input,
    )


def cancel(session: Session, data: LLMResponseCancel) -> Result:
    """LLM_RESPONSE_CANCEL."""
    raise NotImplementedYet("Cancelling a generation is not implemented yet.")
