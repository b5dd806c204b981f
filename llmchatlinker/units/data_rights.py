"""The Database Manage Unit, second part: all that is kept of a user, out. ``erasing.py``: away."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.models import (
    Attempt,
    Chat,
    ChatMember,
    FormerUser,
    Instruction,
    Message,
    Record,
    User,
)
from llmchatlinker.instruction_data.database import UserExport
from llmchatlinker.settings import get_settings
from llmchatlinker.units import listing
from llmchatlinker.units.lookups import no_user
from llmchatlinker.units.views import (
    attempt_view,
    chat_view,
    instruction_view,
    message_view,
    moment,
    record_view,
    user_view,
)

Result = dict[str, Any]
#: Rows of a section behind a position, each with its own position.
Rows = list[tuple[int, dict[str, Any]]]

EXPORT_PAGE = 500
#: ``after`` of an export counts rows of one section behind the other: section * SECTION + row id.
SECTION = 10**17


class _Room:
    """What a page takes: so many rows, and half of what a result may have; one row in any case."""

    def __init__(self) -> None:
        self._rows = EXPORT_PAGE
        self._bytes = get_settings().result_bytes // 2
        self._empty = True

    def takes(self, view: dict[str, Any]) -> bool:
        """Whether it has room for this one as well; then it is taken."""
        self._rows -= 1
        self._bytes -= len(json.dumps(view))
        fits = self._empty or (self._rows >= 0 and self._bytes >= 0)
        self._empty = False
        return fits


def export_user(session: Session, data: UserExport) -> Result:
    """USER_EXPORT: the user on each page; chats, messages, records, … one behind the other."""
    result: Result = {"user": _user(session, data.user_id)}
    section, after = divmod(data.after or 0, SECTION)
    room = _Room()
    for number in range(section, len(SECTIONS)):
        name, read = SECTIONS[number]
        result[name] = views = []
        for position, view in read(session, data.user_id, after):
            if not room.takes(view):
                return result | {"next": number * SECTION + after}
            views.append(view)
            after = position
        after = 0
    return result | {"next": None}


def _user(session: Session, user_id: int) -> dict[str, Any]:
    user = session.get(User, user_id)
    if user is not None:
        return user_view(user)
    former = session.get(FormerUser, user_id)
    if former is None or former.erased_at is not None:
        raise no_user(user_id)
    return {
        "user_id": user_id,
        "usernames": former.usernames or [],
        "deleted_at": moment(former.left_at),
    }


def _page(query: Any, key: Any, after: int) -> Any:
    return query.where(key > after).order_by(key).limit(EXPORT_PAGE + 1)


def _chats(session: Session, user_id: int, after: int) -> Rows:
    query = select(Chat).join(ChatMember, ChatMember.chat_id == Chat.id)
    query = query.where(ChatMember.user_id == user_id)
    chats = list(session.scalars(_page(query, Chat.id, after)))
    users = listing.members(driver.within(session), [chat.id for chat in chats])
    return [(chat.id, chat_view(chat, users[chat.id])) for chat in chats]


def _messages(session: Session, user_id: int, after: int) -> Rows:
    whose: ColumnElement[bool] = or_(Message.user_id == user_id, Message.former_user_id == user_id)
    rows = session.scalars(_page(select(Message).where(whose), Message.id, after))
    return [(message.id, message_view(message)) for message in rows]


def _records(session: Session, user_id: int, after: int) -> Rows:
    query = select(Record).where(Record.user_id == user_id)
    return [(r.id, record_view(r)) for r in session.scalars(_page(query, Record.id, after))]


def _instructions(session: Session, user_id: int, after: int) -> Rows:
    query = select(Instruction).where(Instruction.user_ids.contains([user_id]))
    rows = session.scalars(_page(query, Instruction.seq, after))
    return [(row.seq, _with_text(row)) for row in rows]


def _with_text(instruction: Instruction) -> dict[str, Any]:
    """An instruction as it was given. What came of it is in the other sections, or is an error."""
    view = instruction_view(instruction) | {"data": instruction.data}
    if instruction.idempotency_key is not None:
        view["idempotency_key"] = instruction.idempotency_key
    outcome = instruction.outcome or {}
    if "error" in outcome:
        view |= {"message": outcome["message"], "details": outcome["error"]["details"]}
    return view


def _attempts(session: Session, user_id: int, after: int) -> Rows:
    query = select(Attempt).where(Attempt.user_id == user_id)
    return [(a.id, attempt_view(a)) for a in session.scalars(_page(query, Attempt.id, after))]


SECTIONS: tuple[tuple[str, Callable[[Session, int, int], Rows]], ...] = (
    ("chats", _chats),
    ("messages", _messages),
    ("records", _records),
    ("instructions", _instructions),
    ("attempts", _attempts),
)
