"""How a handler that talks to a provider is cut into pieces that hold no transaction in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Instruction
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.turns import Aftermath

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reader:
    """A handler that changes nothing, and is asked for often: its transaction has no Session.

    ``read`` gets the transaction's ``Rows`` and the data.
    """

    read: Callable[[Rows, Any], Result]

    def __call__(self, rows: Rows, data: Any) -> Result:
        """As it is for other handlers that call no provider."""
        return self.read(rows, data)


@dataclass(frozen=True, slots=True)
class Parked:
    """The instruction must wait: its row says why, its message is acknowledged.

    ``seconds``: when it is due by itself; None where somebody else's end lets it go on.
    """

    reason: str
    seconds: float | None = None
    provider_id: int | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Another worker is at it and alive: leave it alone."""


@dataclass(frozen=True, slots=True)
class Again:
    """Claim once more, in this slot, after a pause that is short enough for that."""

    seconds: float


@dataclass(frozen=True, slots=True)
class HandedBack:
    """This worker stops: the instruction goes on in another one, which gets its message again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The instruction ends here. ``message``: what is said instead of the type's own sentence."""

    data: Result
    error: LLMChatLinkerError | None = None
    message: str | None = None


class ProviderHandler(Protocol):
    """A handler whose work is a call of a provider.

    ``claim`` and ``settle`` each run in a transaction of their own, with the instruction's row
    locked; ``perform`` runs in none. A claim that raises leaves nothing behind. Each may be run
    again when the connection broke, so it finds out for itself what an earlier run has committed.

    ``claim_straight`` and ``settle_straight`` are the same for where nothing is out of the ordinary, for
    whatever comes at the same moment together; the row is not locked before. Where they say no, nothing
    is written.
    """

    def claim_straight(self, instruction_id: UUID, worker: str) -> tuple[Any, Aftermath] | None:
        """Commit that the call is about to be made, and return what it needs; None: claim it."""

    def settle_straight(self, work: Any, answer: Any, done: str) -> Aftermath | None:
        """Commit the answer and the outcome, which says ``done``; None: settle it."""

    def claim(
        self,
        session: Session,
        instruction: Instruction,
        data: Any,
        worker: str,
        aftermath: Aftermath,
    ) -> Any | Parked | Held | Ended:
        """Take the work: commit that the call is about to be made, and return what it needs."""

    def perform(self, work: Any) -> Any:
        """Make the call. What it raises is given to ``settle`` as the answer."""

    def settle(
        self,
        session: Session,
        instruction: Instruction | None,
        work: Any,
        answer: Any | LLMChatLinkerError,
        aftermath: Aftermath,
    ) -> Ended | Parked | Again | HandedBack | None:
        """Write down how the call ended, and what becomes of the instruction.

        ``instruction`` may have its outcome already, or be gone: then, and where another worker has
        taken over, what is returned changes nothing.
        """


class GeneralWay:
    """Of handlers whose work is too rare for a straight way."""

    def claim_straight(self, instruction_id: UUID, worker: str) -> tuple[Any, Aftermath] | None:
        """None: claim it."""
        return None

    def settle_straight(self, work: Any, answer: Any, done: str) -> Aftermath | None:
        """None: settle it."""
        return None
