"""What a turn does that finds its chat busy."""

from __future__ import annotations

from typing import Any

from llmchatlinker.db.models import Chat
from llmchatlinker.settings import get_settings


def policy_of(data: Any, chat: Chat) -> str:
    """The instruction's own policy, or else the chat's, or else the setting."""
    named: str | None = getattr(data, "turn_policy", None)
    return named or chat.turn_policy or get_settings().turn_policy
