"""LLM_RESPONSE_CANCEL."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from llmchatlinker.errors import NotImplementedYet
from llmchatlinker.instruction_data.llm import LLMResponseCancel


def cancel(session: Session, data: LLMResponseCancel) -> dict[str, Any]:
    """LLM_RESPONSE_CANCEL."""
    raise NotImplementedYet("Cancelling a generation is not implemented yet.")
