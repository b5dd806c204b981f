"""The Database Manage Unit, second half: everything that is kept of a user, out and away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session

from llmchatlinker.db.models import Attempt, Chat, ChatMember, Event, Instruction, Message, Record
from llmchatlinker.instruction_data.database import UserErase, UserExport
from llmchatlinker.units.lookups import get_user, members
from llmchatlinker.units.user import chats_of_nobody_else
from llmchatlinker.units.views import (
    attempt_view,
    chat_view,
    instruction_view,
    message_view,
    record_view,
    user_view,
)

Result = dict[str, Any]

EXPORT_PAGE = 500
#: ``after`` of an export counts rows of one section behind the other: section * SECTION + row id.
SECTION = 10**17

#: Instructions whose results show other users' rows, so that an erased user may be in any of them.
SHOWING_OTHERS = (
    "USER_LIST",
    "USER_GET",
    "CHAT_LIST",
    "CHAT_LIST_BY_USER",
    "CHAT_SEARCH",
    "CHAT_CREATE",
    "USER_EXPORT",
)


def export_user(session: Session, data: UserExport) -> Result:
    """USER_EXPORT: the first page has the user and the chats; then messages, records, …"""
    user = get_user(session, data.user_id)
    position = data.after or 0
    result: Result = {"user": user_view(user)}
    if position == 0:
        result["chats"] = _chats(session, user.id)
    section, after = divmod(position, SECTION)
    sections: list[tuple[str, Callable[[Session, int, int], list[tuple[int, Any]]]]] = [
        ("messages", _messages),
        ("records", _records),
        ("instructions", _instructions),
        ("attempts", _attempts),
    ]
    room = EXPORT_PAGE
    for number in range(section, len(sections)):
        name, read = sections[number]
        rows = read(session, user.id, after)
        result[name] = [view for _, view in rows[:room]]
        if len(rows) > room:
            last = rows[room - 1][0] if room else after
            return result | {"next": number * SECTION + last}
        room -= len(rows)
        after = 0
    return result | {"next": None}


def _chats(session: Session, user_id: int) -> list[dict[str, Any]]:
    chats = list(
        session.scalars(
            select(Chat)
            .join(ChatMember, ChatMember.chat_id == Chat.id)
            .where(ChatMember.user_id == user_id)
            .order_by(Chat.id)
        )
    )
    users = members(session, [chat.id for chat in chats])
    return [chat_view(chat, users[chat.id]) for chat in chats]


def _messages(session: Session, user_id: int, after: int) -> list[tuple[int, Any]]:
    rows = session.scalars(
        select(Message)
        .where(Message.user_id == user_id, Message.id > after)
        .order_by(Message.id)
        .limit(EXPORT_PAGE + 1)
    )
    return [(message.id, message_view(message)) for message in rows]


def _records(session: Session, user_id: int, after: int) -> list[tuple[int, Any]]:
    rows = session.scalars(
        select(Record)
        .where(Record.user_id == user_id, Record.id > after)
        .order_by(Record.id)
        .limit(EXPORT_PAGE + 1)
    )
    return [(record.id, record_view(record)) for record in rows]


def _instructions(session: Session, user_id: int, after: int) -> list[tuple[int, Any]]:
    rows = session.scalars(
        select(Instruction)
        .where(Instruction.user_ids.contains([user_id]), Instruction.seq > after)
        .order_by(Instruction.seq)
        .limit(EXPORT_PAGE + 1)
    )
    return [(item.seq, instruction_view(item)) for item in rows]


def _attempts(session: Session, user_id: int, after: int) -> list[tuple[int, Any]]:
    rows = session.scalars(
        select(Attempt)
        .where(Attempt.user_id == user_id, Attempt.id > after)
        .order_by(Attempt.id)
        .limit(EXPORT_PAGE + 1)
    )
    return [(attempt.id, attempt_view(attempt)) for attempt in rows]


#: Rows that are the user's: by id once decoded, by what was submitted before that.
_OWN = """
    (user_ids @> ARRAY[:user_id]
     OR data @> jsonb_build_object('user_id', :user_id)
     OR data->'user_ids' @> to_jsonb(:user_id)
     OR data->'add_users' @> to_jsonb(:user_id) OR data->'remove_users' @> to_jsonb(:user_id)
     OR data @> jsonb_build_object('username', CAST(:username AS text))
     OR data->'usernames' @> to_jsonb(CAST(:username AS text))
     OR data->'add_users' @> to_jsonb(CAST(:username AS text))
     OR data->'remove_users' @> to_jsonb(CAST(:username AS text)))
    AND NOT (type = 'USER_ERASE' AND final_at IS NULL)
"""

#: What is still to be done for the user ends here. Its chain, or the sweeper, makes it final.
_CANCEL = f"""
    UPDATE instructions
       SET data = '{{}}', state = 'executed', executed_at = now(), published_at = now(),
           wait_reason = NULL, not_before = NULL,
           turn = CASE WHEN turn = 'queued' THEN 'done' ELSE turn END,
           outcome = jsonb_build_object(
               'status', 'error', 'message', CAST(:said AS text), 'data', CAST('{{}}' AS jsonb),
               'instruction_id', CAST(id AS text), 'error', jsonb_build_object(
                   'code', 'cancelled', 'stage', 'execute', 'details', CAST('{{}}' AS jsonb)))
     WHERE outcome IS NULL AND final_at IS NULL AND {_OWN}
    RETURNING id
"""

#: Whatever has ended and may hold text of the user: its own, what happened in a chat that the user
#: ever took part in, and what shows other users' rows.
_BLANK = f"""
    WITH shared AS (
        SELECT chat_id FROM chat_members WHERE user_id = :user_id
        UNION SELECT chat_id FROM messages WHERE user_id = :user_id
        UNION SELECT chat_id FROM instructions WHERE user_ids @> ARRAY[:user_id]
    )
    UPDATE instructions
       SET data = '{{}}',
           outcome = outcome
               || jsonb_build_object('data', CAST('{{}}' AS jsonb), 'message', CAST(:said AS text))
               || CASE WHEN outcome->'error' IS NULL THEN CAST('{{}}' AS jsonb)
                       ELSE jsonb_build_object('error', (outcome->'error')
                            || jsonb_build_object('details', CAST('{{}}' AS jsonb))) END
     WHERE (outcome IS NOT NULL OR final_at IS NOT NULL)
       AND (({_OWN}) OR chat_id IN (SELECT chat_id FROM shared) OR type = ANY (:showing_others))
    RETURNING id
"""


def erase_user(session: Session, data: UserErase) -> Result:
    """USER_ERASE: nothing that the user wrote, or that was answered to it, is left."""
    user = get_user(session, data.user_id, lock=True)
    values = {
        "user_id": user.id,
        "username": user.username,
        "showing_others": list(SHOWING_OTHERS),
        "said": "Erased with its user.",
    }
    blanked = {
        instruction_id
        for statement in (_CANCEL, _BLANK)
        for instruction_id in session.scalars(text(statement), values)
    }
    _delete_events(session, user.id, blanked)
    counts = {"instructions": len(blanked)}
    counts["records"] = _count(
        session, delete(Record).where(Record.user_id == user.id).returning(Record.id)
    )
    own = chats_of_nobody_else(user.id)
    counts["chats"] = _count(session, delete(Chat).where(Chat.id.in_(own)).returning(Chat.id))
    counts["messages"] = _count(
        session,
        update(Message)
        .where(Message.user_id == user.id)
        .values(content="", parts=None, reasoning=None, tool_calls=None, erased=True)
        .returning(Message.id),
    )
    session.delete(user)
    session.flush()
    counts["users"] = 1
    return {"erased": counts}


def _delete_events(session: Session, user_id: int, instruction_ids: set[Any]) -> None:
    """The streams of the same instructions, and of whatever the user said before they were removed."""
    said = select(Message.instruction_id).where(
        Message.user_id == user_id, Message.instruction_id.is_not(None)
    )
    for ids in (list(instruction_ids), said):
        session.execute(
            delete(Event)
            .where(Event.instruction_id.in_(ids))
            .execution_options(synchronize_session=False)
        )


def _count(session: Session, statement: Any) -> int:
    return len(session.scalars(statement).all())
