"""Data of the user-related instructions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from llmchatlinker.instruction_data.fields import Data, Id, Name, Page

Profile = Annotated[str, Field(min_length=1, max_length=10_000)]


class UserCreate(Data):
    """USER_CREATE."""

    username: Name
    profile: Profile | None = None
    display_name: Name | None = None


class UserUpdate(Data):
    """USER_UPDATE."""

    user_id: Id
    username: Name | None = None
    profile: Profile | None = None
    display_name: Name | None = None


class UserReference(Data):
    """The instructions that take a user and nothing else."""

    user_id: Id


class UserGet(Data):
    """USER_GET: by id or by name."""

    user_id: Id | None = None
    username: Name | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> UserGet:
        if (self.user_id is None) == (self.username is None):
            raise ValueError("takes either user_id or username")
        return self


class UserList(Page):
    """USER_LIST."""


class UserRecords(Page):
    """USER_INSTRUCTION_RECORDING_LIST."""

    user_id: Id
