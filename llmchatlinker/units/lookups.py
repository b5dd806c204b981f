"""Finding what an instruction names, and the error that says what was not there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from llmchatlinker.db.models import LLM, Base, Chat, ChatMember, Message, Provider, User
from llmchatlinker.errors import NotAMember, NotFound

Row = TypeVar("Row", bound=Base)


def get(session: Session, kind: type[Row], field: str, row_id: int, *, lock: bool = False) -> Row:
    """The row with that id; NotFound names ``field``. ``lock``: nobody else changes it meanwhile."""
    row = session.get(kind, row_id, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise missing(kind, field, row_id)
    return row


def missing(kind: type[Base], field: str, row_id: int) -> NotFound:
    """The error of an id that no row has."""
    return NotFound(
        f"There is no {kind.__name__.lower()} {row_id}.", {"field": field, "value": row_id}
    )


def get_user(session: Session, user_id: int, *, lock: bool = False) -> User:
    """The user, or NotFound."""
    return get(session, User, "user_id", user_id, lock=lock)


def no_user(user_id: int) -> NotFound:
    """The error of a user's id that nobody has."""
    return missing(User, "user_id", user_id)


def no_provider(provider_id: int) -> NotFound:
    """The error of a provider's id that nobody has."""
    return missing(Provider, "provider_id", provider_id)


def get_chat(session: Session, chat_id: int, *, lock: bool = False) -> Chat:
    """The chat, or NotFound."""
    return get(session, Chat, "chat_id", chat_id, lock=lock)


def get_provider(session: Session, provider_id: int, *, lock: bool = False) -> Provider:
    """The provider, or NotFound."""
    return get(session, Provider, "provider_id", provider_id, lock=lock)


def get_provider_to_delete(session: Session, provider_id: int) -> Provider:
    """The provider, or NotFound; nobody else gives it an LLM meanwhile either."""
    session.execute(select(Provider.id).where(Provider.id == provider_id).with_for_update())
    return get_provider(session, provider_id)


def get_llm(session: Session, llm_id: int, *, lock: bool = False) -> LLM:
    """The LLM, or NotFound."""
    row = session.get(LLM, llm_id, with_for_update={"key_share": True} if lock else None)
    if row is None:
        raise NotFound(f"There is no LLM {llm_id}.", {"field": "llm_id", "value": llm_id})
    return row


def get_message(session: Session, message_id: int, field: str = "message_id") -> Message:
    """The message, or NotFound."""
    return get(session, Message, field, message_id)


def visible(message: Message, field: str) -> Message:
    """The message, or NotFound where its turn was rolled back."""
    if message.hidden:
        raise NotFound(f"There is no message {message.id}.", {"field": field, "value": message.id})
    return message


def user_ids_by_name(session: Session, usernames: Iterable[str], field: str) -> dict[str, int]:
    """The ids behind ``usernames``; NotFound lists every name that nobody has."""
    wanted = list(dict.fromkeys(usernames))
    rows = session.execute(select(User.username, User.id).where(User.username.in_(wanted)))
    found = {row.username: row.id for row in rows}
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(repr(name) for name in missing[:5])
        raise NotFound(
            f"There is no user named {shown}.", {"field": field, "missing": missing[:20]}
        )
    return found


def users_by_id(session: Session, user_ids: Iterable[int], field: str) -> list[User]:
    """The users with these ids, in order; NotFound lists every id that nobody has."""
    wanted = list(dict.fromkeys(user_ids))
    found = {user.id: user for user in session.scalars(select(User).where(User.id.in_(wanted)))}
    missing = [user_id for user_id in wanted if user_id not in found]
    if missing:
        shown = ", ".join(str(user_id) for user_id in missing[:5])
        raise NotFound(f"There is no user {shown}.", {"field": field, "missing": missing[:20]})
    return [found[user_id] for user_id in wanted]


def provider_id_by_name(session: Session, name: str) -> int:
    """The id of the provider of that name."""
    provider_id = session.scalar(select(Provider.id).where(Provider.name == name))
    if provider_id is None:
        raise NotFound(
            f"There is no provider named {name!r}.", {"field": "provider_name", "value": name}
        )
    return provider_id


def llm_id_by_name(session: Session, provider_id: int, llm_name: str) -> int:
    """The id of the provider's LLM of that name."""
    llm_id = session.scalar(
        select(LLM.id).where(LLM.provider_id == provider_id, LLM.llm_name == llm_name)
    )
    if llm_id is None:
        raise NotFound(
            f"Provider {provider_id} has no LLM named {llm_name!r}.",
            {"field": "llm_name", "value": llm_name},
        )
    return llm_id


def require_member(session: Session, chat_id: int, user_id: int) -> None:
    """Raise NotAMember unless the user takes part in the chat."""
    if session.get(ChatMember, (chat_id, user_id)) is None:
        raise not_a_member(chat_id, user_id)


def not_a_member(chat_id: int, user_id: int) -> NotAMember:
    """The error of a user who does not take part in the chat."""
    return NotAMember(
        f"User {user_id} is not a member of chat {chat_id}.",
        {"user_id": user_id, "chat_id": chat_id},
    )


def page(
    session: Session, query: Select[Row], limit: int, key: str = "id"
) -> tuple[list[Row], Any]:
    """At most ``limit`` rows of ``query`` and what ``after`` takes for the rest (None at the end)."""
    rows = list(session.scalars(query.limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], getattr(rows[limit - 1], key)
