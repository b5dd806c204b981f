"""What a turn does that finds its chat busy: wait, give up, or have the turns before it ended.

Decode applies it, so that it works at once, past all generations that wait. Who may not speak in the
chat ends nobody's turn.
"""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Chat
from llmchatlinker.errors import ChatBusy
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import LLMResponseGenerate, LLMResponseRegenerate
from llmchatlinker.settings import get_settings
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.cancelling import open_turns_before, request
from llmchatlinker.units.lookups import get_chat, require_member

#: What a policy asks of the turns before; it is their ``cancel_requested``.
REASONS = {"interrupt": "interrupted", "rollback": "rolled_back"}


def policy_of(data: Any, chat_policy: str | None) -> str:
    """The instruction's own policy, or else the chat's, or else the setting."""
    named: str | None = getattr(data, "turn_policy", None)
    return named or chat_policy or get_settings().turn_policy


def apply(
    session: Session,
    instruction_id: uuid.UUID,
    data: Data,
    chat_id: int | None,
    aftermath: Aftermath,
) -> None:
    """Apply the policy of a turn that was just decoded. Raises ChatBusy, NotAMember or NotFound."""
    if chat_id is None or not isinstance(data, LLMResponseGenerate | LLMResponseRegenerate):
        return
    policy = getattr(data, "turn_policy", None)
    if policy is None:
        policy = policy_of(data, session.scalar(select(Chat.turn_policy).where(Chat.id == chat_id)))
    if policy == "enqueue":
        return
    get_chat(session, chat_id)
    if data.user_id is not None:
        require_member(session, chat_id, data.user_id)
    before = open_turns_before(session, chat_id, instruction_id)
    if policy == "reject":
        if before:
            raise busy(chat_id)
        return
    for earlier in reversed(before):  # so that none of them is let go on first
        request(session, earlier, REASONS[policy], aftermath)


def busy(chat_id: int) -> ChatBusy:
    """The error of policy ``reject``."""
    return ChatBusy(details={"chat_id": chat_id})
