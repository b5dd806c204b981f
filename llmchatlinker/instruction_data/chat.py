"""Data of the chat-related instructions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from llmchatlinker.instruction_data.fields import (
    LIST_LIMIT,
    Data,
    Id,
    MessageId,
    Name,
    Page,
    Text,
    TurnPolicy,
)

Members = Annotated[list[Id], Field(min_length=1, max_length=1_000)]
Usernames = Annotated[list[Name], Field(min_length=1, max_length=1_000)]
#: Members to add or remove: ids and names, mixed as the caller likes.
Users = Annotated[list[Id | Name], Field(min_length=1, max_length=1_000)]


class ChatCreate(Data):
    """CHAT_CREATE."""

    title: Name
    usernames: Usernames | None = None
    user_ids: Members | None = None
    system_prompt: Text | None = None
    turn_policy: TurnPolicy | None = None

    @model_validator(mode="after")
    def _somebody(self) -> ChatCreate:
        if self.usernames is None and self.user_ids is None:
            raise ValueError("takes usernames or user_ids, one or more")
        return self


class ChatUpdate(Data):
    """CHAT_UPDATE."""

    chat_id: Id
    title: Name | None = None
    system_prompt: Text | None = None
    turn_policy: TurnPolicy | None = None
    add_users: Users | None = None
    remove_users: Users | None = None
    active_message_id: MessageId | None = None


class ChatReference(Data):
    """The instructions that take a chat and nothing else."""

    chat_id: Id


class ChatLoad(Data):
    """CHAT_LOAD: the newest messages of the active branch, or of the whole tree."""

    chat_id: Id
    branch: Literal["active", "all"] = "active"
    limit: Annotated[int, Field(ge=1, le=LIST_LIMIT)] = 100
    before: MessageId | None = None


class ChatList(Page):
    """CHAT_LIST."""


class ChatListByUser(Page):
    """CHAT_LIST_BY_USER."""

    user_id: Id


class ChatSearch(Data):
    """CHAT_SEARCH: in the chats that the user is a member of."""

    user_id: Id
    query: Name
    limit: Annotated[int, Field(ge=1, le=LIST_LIMIT)] = 100


class ChatExport(Data):
    """CHAT_EXPORT: one page of the whole chat."""

    chat_id: Id
    after: MessageId | None = None
