"""The LLM Manage Unit, third part: where a provider is, and what it says it serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import LLM, Instruction, Provider
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instruction_data.llm import LLMProviderDiscover
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.calls import HANDED_BACK
from llmchatlinker.providers.registry import wire
from llmchatlinker.settings import get_settings
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.handling import Ended, GeneralWay, HandedBack
from llmchatlinker.units.headers import merged, opened
from llmchatlinker.units.lookups import get_provider

Result = dict[str, Any]


def endpoint_of(provider: Provider, llm: LLM | None = None, *, seconds: float) -> Endpoint:
    """Where and how to speak to the provider; ``seconds``: what is left of the instruction's time.

    The LLM's settings go before the provider's, those before the process's.
    """
    process = get_settings()
    settings = provider.settings | ({} if llm is None else llm.settings)
    timeouts = (provider.settings.get("timeouts") or {}) | (settings.get("timeouts") or {})
    return Endpoint(
        name=provider.name,
        url=provider.api_endpoint,
        api_key=None if provider.api_key is None else secrets.decrypt(provider.api_key, process),
        connect_timeout=timeouts.get("connect", process.provider_connect_timeout),
        first_token_timeout=timeouts.get("first_token", process.provider_first_token_timeout),
        read_timeout=timeouts.get("read", process.provider_read_timeout),
        total_timeout=min(timeouts.get("total", process.provider_total_timeout), max(0.1, seconds)),
        answer_bytes=process.provider_answer_bytes,
        headers=opened(merged(provider.settings.get("headers"), settings.get("headers"))),
        stream=settings.get("stream", True),
        include_usage=settings.get("include_usage", True),
    )


def _seconds_left(session: Session, instruction: Instruction) -> float:
    left = session.scalar(
        select(func.extract("epoch", Instruction.deadline_at - func.clock_timestamp())).where(
            Instruction.id == instruction.id
        )
    )
    return float(left or 0)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A provider to ask for its models."""

    kind: str
    endpoint: Endpoint


class Discover(GeneralWay):
    """LLM_PROVIDER_DISCOVER. Asking twice does no harm, so there is no ledger."""

    def claim(
        self,
        session: Session,
        instruction: Instruction,
        data: LLMProviderDiscover,
        worker: str,
        aftermath: Aftermath,
    ) -> Inquiry:
        """Read where the provider is."""
        provider = get_provider(session, data.provider_id)
        return Inquiry(
            provider.kind, endpoint_of(provider, seconds=_seconds_left(session, instruction))
        )

    def perform(self, work: Inquiry) -> list[str]:
        """Ask."""
        return wire(work.kind).models(work.endpoint)

    def settle(
        self,
        session: Session,
        instruction: Instruction | None,
        work: Inquiry,
        answer: list[str] | LLMChatLinkerError,
        aftermath: Aftermath,
    ) -> Ended | HandedBack:
        """The names as they came."""
        if isinstance(answer, LLMChatLinkerError):
            if answer.details.get("reason") == HANDED_BACK:
                return HandedBack()
            return Ended({}, answer)
        return Ended({"models": answer})
