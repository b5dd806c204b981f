"""Data of the database-related instructions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field

from llmchatlinker.instruction_data.fields import BIGINT_MAX, Data, Id, InstructionId, Name, Page


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a moment in ISO 8601")
    return value


def _in_utc(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


#: In UTC where it does not say. A number would do for pydantic too, and mean seconds since 1970.
Moment = Annotated[
    datetime, Field(strict=False), BeforeValidator(_is_text), AfterValidator(_in_utc)
]
State = Literal["submitted", "decoded", "executed", "waiting", "final", "withdrawn"]


class InstructionGet(Data):
    """INSTRUCTION_GET."""

    instruction_id: InstructionId


class InstructionList(Page):
    """INSTRUCTION_LIST, newest first; ``after`` is the last ``seq`` seen."""

    user_id: Id | None = None
    state: State | None = None
    type: Name | None = None


class UsageList(Data):
    """USAGE_LIST: ``from`` (inclusive) and ``to`` (exclusive) are ISO 8601 moments."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, populate_by_name=False, serialize_by_alias=True
    )

    user_id: Id | None = None
    llm_id: Id | None = None
    since: Moment | None = Field(default=None, alias="from")
    until: Moment | None = Field(default=None, alias="to")


class UserExport(Data):
    """USER_EXPORT: one page of everything kept of a user; ``after`` is the last message id seen."""

    user_id: Id
    after: Annotated[int, Field(ge=0, le=BIGINT_MAX)] | None = None


class UserErase(Data):
    """USER_ERASE."""

    user_id: Id
