"""The User Manage Unit: users and the records of what they had done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Chat, ChatMember, Record, User
from llmchatlinker.instruction_data.user import (
    UserCreate,
    UserGet,
    UserList,
    UserRecords,
    UserReference,
    UserUpdate,
)
from llmchatlinker.streaming import store
from llmchatlinker.turns import stop_turns_of_chats
from llmchatlinker.units import former_users, listing
from llmchatlinker.units.lookups import get_user, no_user
from llmchatlinker.units.views import record_view, user_view

Result = dict[str, Any]


def create(session: Session, data: UserCreate) -> Result:
    """USER_CREATE."""
    user = User(username=data.username, display_name=data.display_name, profile=data.profile)
    session.add(user)
    session.flush()
    return {"user": user_view(user)}


def update(session: Session, data: UserUpdate) -> Result:
    """USER_UPDATE."""
    user = get_user(session, data.user_id, lock=True)
    if data.username is not None:
        user.username = data.username
    if data.profile is not None:
        user.profile = data.profile
    if data.display_name is not None:
        user.display_name = data.display_name
    session.flush()
    session.refresh(user)
    return {"user": user_view(user)}


def delete_user(session: Session, data: UserReference) -> Result:
    """USER_DELETE: the user, and the chats that nobody else is in. It can be erased even then."""
    user = get_user(session, data.user_id, lock=True)
    former_users.remember(session, user.id)
    stop_turns_of_chats(session, chats_of_nobody_else(user.id))
    store.delete_of_chats(session, chats_of_nobody_else(user.id))
    session.execute(delete(Chat).where(Chat.id.in_(chats_of_nobody_else(user.id))))
    former_users.leave_messages(session, user.id)
    session.delete(user)
    session.flush()
    return {}


def chats_of_nobody_else(user_id: int) -> Any:
    """A query for the ids of the chats whose one member is the user."""
    mine = select(ChatMember.chat_id).where(ChatMember.user_id == user_id)
    return (
        select(ChatMember.chat_id)
        .where(ChatMember.chat_id.in_(mine))
        .group_by(ChatMember.chat_id)
        .having(func.count() == 1)
    )


def list_users(rows: Rows, data: UserList) -> Result:
    """USER_LIST."""
    users, following = listing.page(rows, User, data)
    return {"users": [user_view(user) for user in users], "next": following}


def get(rows: Rows, data: UserGet) -> Result:
    """USER_GET; a name was resolved to its id by decode."""
    assert data.user_id is not None
    return {"user": user_view(listing.row(rows, User, data.user_id, no_user(data.user_id)))}


def enable_recording(session: Session, data: UserReference) -> Result:
    """USER_INSTRUCTION_RECORDING_ENABLE."""
    return _set_recording(session, data.user_id, True)


def disable_recording(session: Session, data: UserReference) -> Result:
    """USER_INSTRUCTION_RECORDING_DISABLE."""
    return _set_recording(session, data.user_id, False)


def _set_recording(session: Session, user_id: int, recording: bool) -> Result:
    user = get_user(session, user_id, lock=True)
    user.recording = recording
    session.flush()
    session.refresh(user)
    return {"user": user_view(user)}


def delete_records(session: Session, data: UserReference) -> Result:
    """USER_INSTRUCTION_RECORDS_DELETE."""
    user = get_user(session, data.user_id)
    deleted = session.scalars(delete(Record).where(Record.user_id == user.id).returning(Record.id))
    return {"deleted": len(deleted.all())}


def list_records(rows: Rows, data: UserRecords) -> Result:
    """USER_INSTRUCTION_RECORDING_LIST, oldest first."""
    user = listing.row(rows, User, data.user_id, no_user(data.user_id))
    records, following = listing.page(rows, Record, data, "user_id = %(user_id)s", user_id=user.id)
    return {"records": [record_view(record) for record in records], "next": following}
