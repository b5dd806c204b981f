"""How many calls are made at once and per minute: of a provider, of an LLM, for a user."""

from __future__ import annotations

from sqlalchemy.orm import Session

from llmchatlinker.db.models import Instruction
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.handling import Parked
from llmchatlinker.units.routing import Route


def admit(
    session: Session,
    instruction: Instruction,
    route: Route,
    user_id: int | None,
    aftermath: Aftermath,
) -> Parked | None:
    """None where the call may be made now."""
    return None


def release(session: Session, route: Route, user_id: int | None, aftermath: Aftermath) -> None:
    """A call has ended: let those go on that have waited for its place."""


def release_due(session: Session) -> Aftermath:
    """Let go on what is due by the clock."""
    return Aftermath()
