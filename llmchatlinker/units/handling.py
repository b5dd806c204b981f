"""How a handler that talks to a provider is cut into pieces that hold no transaction in between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction
from llmchatlinker.errors import LLMChatLinkerError

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parked:
    """The instruction must wait: its row says why, its message is acknowledged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker is at it and alive: leave it alone."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The instruction ends here, and what claim has changed is kept."""

    error: LLMChatLinkerError


class ProviderHandler(Protocol):
    """A handler whose work is a call of a provider.

    ``claim`` and ``settle`` with ``complete`` each run in a transaction of their own; ``perform``
    runs in none. A claim that raises leaves nothing behind.
    """

    def claim(
        self, session: Session, instruction: Instruction, data: Any, worker: str
    ) -> Any | Parked | Held | Refused:
        """Take the work: commit that the call is about to be made, and return what it needs."""

    def perform(self, work: Any) -> Any:
        """Make the call. Raises ProviderError or ProviderTimeout."""

    def settle(self, session: Session, work: Any, answer: Any | LLMChatLinkerError) -> None:
        """Write into the ledger how the call ended, whatever becomes of the instruction."""

    def complete(
        self, session: Session, instruction: Instruction, work: Any, answer: Any
    ) -> Result:
        """Turn the answer into rows; commits together with the outcome or not at all."""
