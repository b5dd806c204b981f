"""The LLM Manage Unit, second half: calls of providers, and the turns that they are made for.

A turn is claimed in one transaction (its place in the chat, the line in the ledger, the history),
the provider is called without any, and question, answer and outcome are committed in another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import LLM, Attempt, Chat, Instruction, Message, Provider
from llmchatlinker.errors import (
    InDoubt,
    InvalidData,
    LLMChatLinkerError,
    NotFound,
    NotImplementedYet,
)
from llmchatlinker.instruction_data.llm import (
    LLMProviderDiscover,
    LLMResponseCancel,
    LLMResponseGenerate,
    LLMResponseRegenerate,
)
from llmchatlinker.leases import lease_end
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint
from llmchatlinker.providers.registry import wire
from llmchatlinker.settings import get_settings
from llmchatlinker.units.context import HISTORY_LENGTH, conversation
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
TOKENS_PER_PRICE = Decimal(1_000_000)


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
        earlier = _started_attempt(session, instruction)
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
        return wire(work.kind).chat(work.endpoint, work.request)

    def settle(self, session: Session, work: Turn, answer: ChatAnswer | LLMChatLinkerError) -> None:
        """Close the attempt."""
        attempt = session.get(Attempt, work.attempt_id, with_for_update=True)
        if attempt is None or attempt.status != "started":
            return
        attempt.finished_at = func.clock_timestamp()
        if isinstance(answer, LLMChatLinkerError):
            attempt.status = "failed"
            attempt.error_code = answer.code
            attempt.http_status = answer.details.get("http_status")
            return
        attempt.status = "answered"
        attempt.prompt_tokens = answer.usage.prompt_tokens
        attempt.completion_tokens = answer.usage.completion_tokens
        attempt.total_tokens = answer.usage.total_tokens
        attempt.cost = _cost(work, answer)

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
        cost = _cost(work, answer)
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


def _started_attempt(session: Session, instruction: Instruction) -> Held | Refused | None:
    """What an earlier delivery of this instruction left in the ledger."""
    row = session.execute(
        select(Attempt, Attempt.lease_until > func.clock_timestamp())
        .where(Attempt.instruction_id == instruction.id, Attempt.status == "started")
        .with_for_update()
    ).first()
    if row is None:
        return None
    attempt, alive = row
    if alive:
        return Held()
    attempt.status = "in_doubt"
    attempt.finished_at = func.clock_timestamp()
    error = InDoubt(
        f"The worker that called {attempt.provider_name!r} died before it could store the answer: "
        "the provider may have generated and billed one. Nothing was added to the chat.",
        {"attempt": attempt.number, "provider": attempt.provider_name},
    )
    attempt.error_code = error.code
    return Refused(error)


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
    endpoint = _endpoint(provider, _seconds_left(session, instruction))
    return Turn(
        attempt_id=_open_attempt(session, instruction, provider, llm, user_id, worker),
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


def _open_attempt(
    session: Session,
    instruction: Instruction,
    provider: Provider,
    llm: LLM,
    user_id: int | None,
    worker: str,
) -> int:
    made = session.scalar(select(func.count()).where(Attempt.instruction_id == instruction.id))
    attempt = Attempt(
        instruction_id=instruction.id,
        number=(made or 0) + 1,
        user_id=user_id,
        llm_id=llm.id,
        provider_name=provider.name,
        llm_name=llm.llm_name,
        worker=worker,
        lease_until=lease_end(),
    )
    session.add(attempt)
    session.flush()
    return attempt.id


def _seconds_left(session: Session, instruction: Instruction) -> float:
    left = session.scalar(
        select(func.extract("epoch", Instruction.deadline_at - func.clock_timestamp())).where(
            Instruction.id == instruction.id
        )
    )
    return max(0.1, float(left or 0))


def _endpoint(provider: Provider, seconds_left: float) -> Endpoint:
    settings = get_settings()
    timeouts = provider.settings.get("timeouts", {})
    return Endpoint(
        name=provider.name,
        url=provider.api_endpoint,
        api_key=None if provider.api_key is None else secrets.decrypt(provider.api_key, settings),
        connect_timeout=timeouts.get("connect", settings.provider_connect_timeout),
        read_timeout=timeouts.get("read", settings.provider_read_timeout),
        total_timeout=min(timeouts.get("total", settings.provider_total_timeout), seconds_left),
        answer_bytes=settings.provider_answer_bytes,
    )


def _cost(work: Turn, answer: ChatAnswer) -> Decimal | None:
    if work.price is None:
        return None
    prompt, completion = answer.usage.prompt_tokens, answer.usage.completion_tokens
    if prompt is None and completion is None:
        return None
    price = {name: Decimal(str(value)) for name, value in work.price.items()}
    total = (prompt or 0) * price.get("prompt", Decimal(0))
    total += (completion or 0) * price.get("completion", Decimal(0))
    return total / TOKENS_PER_PRICE


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A provider to ask for its models."""

    kind: str
    endpoint: Endpoint


class Discover:
    """LLM_PROVIDER_DISCOVER. Asking twice does no harm, so there is no ledger."""

    def claim(
        self, session: Session, instruction: Instruction, data: LLMProviderDiscover, worker: str
    ) -> Inquiry:
        """Read where the provider is."""
        provider = get_provider(session, data.provider_id)
        return Inquiry(provider.kind, _endpoint(provider, _seconds_left(session, instruction)))

    def perform(self, work: Inquiry) -> list[str]:
        """Ask."""
        return wire(work.kind).models(work.endpoint)

    def settle(
        self, session: Session, work: Inquiry, answer: list[str] | LLMChatLinkerError
    ) -> None:
        """Nothing to settle."""

    def complete(
        self, session: Session, instruction: Instruction, work: Inquiry, answer: list[str]
    ) -> Result:
        """The names as they came."""
        return {"models": answer}


def cancel(session: Session, data: LLMResponseCancel) -> Result:
    """LLM_RESPONSE_CANCEL."""
    raise NotImplementedYet("Cancelling a generation is not implemented yet.")
