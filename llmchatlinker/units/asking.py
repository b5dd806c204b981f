"""What a turn asks: whose question, below which message, of which LLMs, in which words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Chat, Message
from llmchatlinker.errors import InvalidData, NotFound
from llmchatlinker.instruction_data.content import parts_of, text_of
from llmchatlinker.instruction_data.llm import LLMResponseGenerate, LLMResponseRegenerate
from llmchatlinker.providers.base import ChatRequest
from llmchatlinker.providers.registry import wire
from llmchatlinker.units import ledger
from llmchatlinker.units.context import HISTORY_LENGTH, conversation, ratio
from llmchatlinker.units.lookups import get_message, not_a_member, visible
from llmchatlinker.units.routing import Route
from llmchatlinker.units.tree import Told, told_up_to


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and where it belongs. ``llm_ids``: whom to ask, in this order."""

    user_id: int | None
    parent_id: int | None
    text: str = field(repr=False)
    parts: list[dict[str, Any]] | None = field(repr=False)
    llm_ids: tuple[int, ...]
    parameters: dict[str, Any] = field(repr=False)
    #: The question that exists already; None for one that comes with this turn.
    question_id: int | None = None

    @property
    def content(self) -> str | list[dict[str, Any]]:
        """The question as a provider takes it."""
        return self.text if self.parts is None else self.parts


class Speaker(Protocol):
    """What is known of who speaks."""

    @property
    def user_exists(self) -> bool:
        """There is such a user."""

    @property
    def is_member(self) -> bool:
        """It takes part in the chat."""


def require_speaker(chat: Chat, user_id: int, speaker: Speaker) -> None:
    """Raise NotFound or NotAMember for who may not speak in the chat."""
    if not speaker.user_exists:
        raise NotFound(f"There is no user {user_id}.", {"field": "user_id", "value": user_id})
    if not speaker.is_member:
        raise not_a_member(chat.id, user_id)


def parent_of(
    session: Session, chat: Chat, data: LLMResponseGenerate, question: Message | None
) -> int | None:
    """Below which message the question goes; ``question``: where an earlier attempt has put it."""
    if question is not None:
        return question.parent_id
    if data.parent_message_id is not None:
        return _branching_point(session, chat, data.parent_message_id)
    return chat.active_message_id


def by_generate(
    data: LLMResponseGenerate, parent_id: int | None, question_id: int | None = None
) -> Asked:
    """What LLM_RESPONSE_GENERATE asks; ``question_id``: where an earlier attempt made the question."""
    assert data.llm_id is not None
    others = [item.llm_id for item in data.fallbacks or () if item.llm_id is not None]
    return Asked(
        user_id=data.user_id,
        parent_id=parent_id,
        text=text_of(data.user_input),
        parts=parts_of(data.user_input),
        llm_ids=tuple(dict.fromkeys([data.llm_id, *others])),
        parameters=data.parameters or {},
        question_id=question_id,
    )


def by_regenerate(session: Session, chat: Chat, data: LLMResponseRegenerate) -> Asked:
    """What LLM_RESPONSE_REGENERATE asks: the question of old."""
    message = visible(get_message(session, data.message_id), "message_id")
    question = message
    if message.role == "assistant":
        assert message.parent_id is not None
        question = get_message(session, message.parent_id)
    if question.erased:
        raise NotFound(
            f"Message {question.id} was erased.", {"field": "message_id", "value": question.id}
        )
    return Asked(
        user_id=data.user_id if data.user_id is not None else question.user_id,
        parent_id=question.parent_id,
        text=question.content,
        parts=question.parts,
        llm_ids=(data.llm_id if data.llm_id is not None else _llm_of(session, message),),
        parameters=data.parameters or {},
        question_id=question.id,
    )


def _history(told: Iterable[Told]) -> list[Told]:
    """What was said above a question, less what was never answered: no provider takes that."""
    found: list[Told] = []
    for message in told:
        if message.role == "user" or message.is_said:
            found.append(message)
        elif found and found[-1].id == message.parent_id:
            found.pop()
    return found


def requests_of(
    rows: Rows, turns: Sequence[tuple[Chat, Asked, Route]]
) -> list[ChatRequest | InvalidData]:
    """What the provider is sent for each turn: the question, and as much of what was said as fits.

    InvalidData for what this LLM can't be asked.
    """
    told = told_up_to(rows, (asked.parent_id for _, asked, _ in turns), HISTORY_LENGTH)
    ratios: dict[int, float] = {}
    found: list[ChatRequest | InvalidData] = []
    for chat, asked, route in turns:
        if route.llm.settings.get("context_window") is not None and route.llm.id not in ratios:
            ratios[route.llm.id] = ratio(ledger.counted(rows, route.provider, route.llm))
        above = _history(told[asked.parent_id])
        try:
            found.append(_request(chat, asked, route, above, ratios.get(route.llm.id, 1.0)))
        except InvalidData as error:
            found.append(error)
    return found


def _request(
    chat: Chat, asked: Asked, route: Route, above: Sequence[Told], ratio: float
) -> ChatRequest:
    parameters = route.parameters | asked.parameters
    max_tokens = parameters.get("max_tokens", parameters.get("max_completion_tokens"))
    messages = conversation(
        chat.system_prompt,
        above,
        asked.content,
        route.llm.settings.get("context_window"),
        max_tokens if isinstance(max_tokens, int) else None,
        tools=parameters.get("tools"),
        ratio=ratio,
    )
    request = ChatRequest(route.llm.llm_name, messages, parameters)
    wire(route.provider.kind).check(request)
    return request


def _llm_of(session: Session, message: Message) -> int:
    """The LLM that answered before: of the answer itself, or of the question's newest answer."""
    if message.role == "assistant":
        llm_id = message.llm_id
    else:
        llm_id = session.scalar(
            select(Message.llm_id)
            .where(Message.parent_id == message.id, Message.llm_id.is_not(None), ~Message.hidden)
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
    message = visible(get_message(session, message_id, "parent_message_id"), "parent_message_id")
    if message.chat_id != chat.id:
        raise NotFound(
            f"Chat {chat.id} has no message {message_id}.",
            {"field": "parent_message_id", "value": message_id},
        )
    return message.id if message.role == "assistant" else message.parent_id
