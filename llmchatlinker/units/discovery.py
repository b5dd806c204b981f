"""The LLM Manage Unit, third part: where a provider is, and what it says it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import Instruction, Provider
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instruction_data.llm import LLMProviderDiscover
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.registry import wire
from llmchatlinker.settings import get_settings
from llmchatlinker.units.lookups import get_provider

Result = dict[str, Any]


def endpoint_of(session: Session, instruction: Instruction, provider: Provider) -> Endpoint:
    """Where and how to speak to the provider, within what is left of the instruction's time."""
    settings = get_settings()
    timeouts = provider.settings.get("timeouts", {})
    return Endpoint(
        name=provider.name,
        url=provider.api_endpoint,
        api_key=None if provider.api_key is None else secrets.decrypt(provider.api_key, settings),
        connect_timeout=timeouts.get("connect", settings.provider_connect_timeout),
        read_timeout=timeouts.get("read", settings.provider_read_timeout),
        total_timeout=min(
            timeouts.get("total", settings.provider_total_timeout),
            _seconds_left(session, instruction),
        ),
        answer_bytes=settings.provider_answer_bytes,
    )


def _seconds_left(session: Session, instruction: Instruction) -> float:
    left = session.scalar(
        select(func.extract("epoch", Instruction.deadline_at - func.clock_timestamp())).where(
            Instruction.id == instruction.id
        )
    )
    return max(0.1, float(left or 0))


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
        return Inquiry(provider.kind, endpoint_of(session, instruction, provider))

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
