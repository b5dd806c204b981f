"""The Chat Manage Unit: chats, their members, and what was said in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Chat, ChatMember, Message, User
from llmchatlinker.errors import Conflict, InvalidData, NotFound
from llmchatlinker.instruction_data.chat import (
    ChatCreate,
    ChatExport,
    ChatList,
    ChatListByUser,
    ChatLoad,
    ChatReference,
    ChatSearch,
    ChatUpdate,
)
from llmchatlinker.streaming import store
from llmchatlinker.turns import stop_turns_of_chats
from llmchatlinker.units import listing
from llmchatlinker.units.lookups import (
    get_chat,
    get_message,
    get_user,
    no_user,
    page,
    users_by_id,
    visible,
)
from llmchatlinker.units.tree import newest_answer, path_to
from llmchatlinker.units.views import chat_view, message_view

Result = dict[str, Any]
EXPORT_PAGE = 500


def create(session: Session, data: ChatCreate) -> Result:
    """CHAT_CREATE; names were resolved to ids by decode."""
    users = users_by_id(session, data.user_ids or [], "user_ids")
    chat = Chat(title=data.title, system_prompt=data.system_prompt, turn_policy=data.turn_policy)
    session.add(chat)
    session.flush()
    session.add_all(ChatMember(chat_id=chat.id, user_id=user.id) for user in users)
    session.flush()
    return {"chat": chat_view(chat, sorted(users, key=lambda user: user.id))}


def update(session: Session, data: ChatUpdate) -> Result:
    """CHAT_UPDATE."""
    chat = get_chat(session, data.chat_id, lock=True)
    for field in ("title", "system_prompt", "turn_policy"):
        value = getattr(data, field)
        if value is not None:
            setattr(chat, field, value)
    if data.add_users:
        _add_members(session, chat.id, data.add_users)
    if data.remove_users:
        _remove_members(session, chat.id, data.remove_users)
    if data.active_message_id is not None:
        chat.active_message_id = _branch_end(session, chat.id, data.active_message_id)
    session.flush()
    session.refresh(chat)
    return {"chat": _view(session, chat)}


def _add_members(session: Session, chat_id: int, user_ids: Sequence[int | str]) -> None:
    users = users_by_id(session, _ids(user_ids), "add_users")
    rows = [{"chat_id": chat_id, "user_id": user.id} for user in users]
    session.execute(insert(ChatMember).on_conflict_do_nothing(), rows)


def _remove_members(session: Session, chat_id: int, user_ids: Sequence[int | str]) -> None:
    session.execute(
        delete(ChatMember).where(
            ChatMember.chat_id == chat_id, ChatMember.user_id.in_(_ids(user_ids))
        )
    )
    if session.scalar(select(func.count()).where(ChatMember.chat_id == chat_id)) == 0:
        raise Conflict(
            "A chat needs at least one member: delete the chat instead.",
            {"field": "remove_users", "chat_id": chat_id},
        )


def _ids(references: Sequence[int | str]) -> list[int]:
    return [item for item in references if isinstance(item, int)]  # decode left no name


def _branch_end(session: Session, chat_id: int, message_id: int) -> int:
    """The answer that ends the branch chosen by a question's or an answer's id."""
    message = visible(get_message(session, message_id, "active_message_id"), "active_message_id")
    if message.chat_id != chat_id:
        raise NotFound(
            f"Chat {chat_id} has no message {message_id}.",
            {"field": "active_message_id", "value": message_id},
        )
    if message.role == "assistant":
        return message.id
    answer = newest_answer(session, message.id)
    if answer is None:
        raise Conflict(
            f"Message {message_id} has no answer yet.",
            {"field": "active_message_id", "value": message_id},
        )
    return answer.id


def delete_chat(session: Session, data: ChatReference) -> Result:
    """CHAT_DELETE."""
    chat = get_chat(session, data.chat_id, lock=True)
    stop_turns_of_chats(session, [chat.id])
    store.delete_of_chats(session, [chat.id])
    session.delete(chat)
    session.flush()
    return {}


def load(session: Session, data: ChatLoad) -> Result:
    """CHAT_LOAD: the newest messages, oldest of them first.

    ``next`` is what ``before`` takes for the messages above (None at the top of the chat).
    """
    chat = get_chat(session, data.chat_id)
    if data.branch == "active":
        messages = _active_branch(session, chat, data)
    else:
        messages = _whole_tree(session, chat, data)
    more = len(messages) > data.limit
    shown = messages[-data.limit :]
    active = {m.id for m in shown} if data.branch == "active" else _active_ids(session, chat, shown)
    view = _view(session, chat)
    view["messages"] = [message_view(m) | {"active": m.id in active} for m in shown]
    return {"chat": view, "next": shown[0].id if more else None}


def _active_branch(session: Session, chat: Chat, data: ChatLoad) -> list[Message]:
    end = chat.active_message_id
    if data.before is not None:
        end = _message_of(session, chat, data.before).parent_id
    return path_to(session, end, data.limit + 1)


def _whole_tree(session: Session, chat: Chat, data: ChatLoad) -> list[Message]:
    query = select(Message).where(Message.chat_id == chat.id, ~Message.hidden)
    query = query.order_by(Message.id.desc())
    if data.before is not None:
        query = query.where(Message.id < _message_of(session, chat, data.before).id)
    return list(session.scalars(query.limit(data.limit + 1)))[::-1]


def _active_ids(session: Session, chat: Chat, shown: Sequence[Message]) -> set[int]:
    """Which of the shown messages lie on the active branch."""
    ids: set[int] = set()
    end, oldest = chat.active_message_id, shown[0].id if shown else 0
    # A parent is always older than its children, so the climb ends at the oldest one shown.
    while end is not None and end >= oldest:
        path = path_to(session, end, 1_000)
        if not path:
            break
        ids.update(message.id for message in path)
        end = path[0].parent_id
    return ids


def _message_of(session: Session, chat: Chat, message_id: int) -> Message:
    message = visible(get_message(session, message_id, "before"), "before")
    if message.chat_id != chat.id:
        raise InvalidData(
            f"Message {message_id} is not in chat {chat.id}.",
            {"fields": [{"field": "before", "problem": "is not a message of this chat"}]},
        )
    return message


def list_chats(rows: Rows, data: ChatList) -> Result:
    """CHAT_LIST."""
    return _listed(rows, *listing.page(rows, Chat, data))


def list_chats_by_user(rows: Rows, data: ChatListByUser) -> Result:
    """CHAT_LIST_BY_USER."""
    user = listing.row(rows, User, data.user_id, no_user(data.user_id))
    mine = "id IN (SELECT chat_id FROM chat_members WHERE user_id = %(user_id)s)"
    return _listed(rows, *listing.page(rows, Chat, data, mine, user_id=user.id))


def _listed(rows: Rows, chats: Sequence[Chat], following: int | None) -> Result:
    users = listing.members(rows, [chat.id for chat in chats])
    return {"chats": [chat_view(chat, users[chat.id]) for chat in chats], "next": following}


def search(session: Session, data: ChatSearch) -> Result:
    """CHAT_SEARCH: PostgreSQL full text, best first, in the chats that the user is a member of."""
    user = get_user(session, data.user_id)
    mine = select(ChatMember.chat_id).where(ChatMember.user_id == user.id)
    query = func.websearch_to_tsquery("simple", data.query)
    rows = session.scalars(
        select(Message)
        .where(Message.chat_id.in_(mine), Message.search.op("@@")(query), ~Message.hidden)
        .order_by(func.ts_rank(Message.search, query).desc(), Message.id.desc())
        .limit(data.limit)
    )
    return {"messages": [message_view(message) for message in rows]}


def export(session: Session, data: ChatExport) -> Result:
    """CHAT_EXPORT: a page of all messages of all branches, oldest first.

    Of turns that were rolled back, too: these are marked ``hidden``.
    """
    chat = get_chat(session, data.chat_id)
    query = (
        select(Message)
        .where(Message.chat_id == chat.id, Message.id > (data.after or 0))
        .order_by(Message.id)
    )
    messages, following = page(session, query, EXPORT_PAGE)
    view = _view(session, chat)
    view["messages"] = [message_view(message) for message in messages]
    return {"chat": view, "next": following}


def _view(session: Session, chat: Chat) -> dict[str, Any]:
    return chat_view(chat, listing.members(driver.within(session), [chat.id])[chat.id])
