"""Taking one user out of a result that shows others as well.

A result is JSON that ``views.py`` made. Whatever in it is of the user carries its id, so it is found
without knowing the result's type, and what is of others stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Texts that are ours and not the user's.
OURS = {
    "role", "status", "created_at", "updated_at", "finish_reason", "llm_name", "day", "type",
    "instruction_id", "outcome", "state", "submitted_at", "finished_at",
}  # fmt: skip
#: Where an instruction's data has names of users.
NAMES = ("username", "usernames", "add_users", "remove_users")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is erased. ``chat_ids``: the chats that are gone, with the user or before it."""

    user_id: int
    usernames: frozenset[str] = frozenset()
    chat_ids: frozenset[int] = frozenset()
    #: What others had answered anew to the user's questions.
    answer_ids: frozenset[int] = frozenset()

    def is_named_in(self, data: Any) -> bool:
        """Whether an instruction's data names the user where it names users."""
        if not isinstance(data, dict):
            return False
        given = [data.get(name) for name in NAMES]
        names = [name for item in given for name in (item if isinstance(item, list) else [item])]
        return any(isinstance(name, str) and name in self.usernames for name in names)


def redact(value: Any, subject: Subject) -> Any:
    """``value`` without what is of the user: each such object keeps its ids, and is marked."""
    if isinstance(value, list):
        return [redact(item, subject) for item in value]
    if not isinstance(value, dict):
        return value
    if subject.user_id in (value.get("user_id"), value.get("former_user_id")):
        return _emptied(value)
    if _is_own_chat(value, subject) or _is_of_a_gone_chat(value, subject):
        return _emptied(value)
    if value.get("message_id") in subject.answer_ids:
        return _emptied(value)
    if subject.is_named_in(value.get("data")):
        return _emptied(value)  # an instruction, in somebody's export
    return {key: redact(item, subject) for key, item in value.items()}


def _is_own_chat(value: dict[str, Any], subject: Subject) -> bool:
    """A chat whose one member was the user, at the time when it was shown."""
    users = value.get("users")
    return (
        "title" in value
        and isinstance(users, list)
        and bool(users)
        and all(isinstance(u, dict) and u.get("user_id") == subject.user_id for u in users)
    )


def _is_of_a_gone_chat(value: dict[str, Any], subject: Subject) -> bool:
    """What nobody else said in it. Its members and its title are looked at as ``_is_own_chat`` does."""
    nobodys = value.get("user_id") is None and "users" not in value
    return nobodys and value.get("chat_id") in subject.chat_ids


def without_name(data: Any, subject: Subject) -> Any:
    """An instruction's data that names others as well, without the user's name."""
    if not subject.is_named_in(data):
        return data
    return {key: _nameless(item, subject) if key in NAMES else item for key, item in data.items()}


def _nameless(item: Any, subject: Subject) -> Any:
    if isinstance(item, list):
        return [one for one in item if one not in subject.usernames]
    return None if item in subject.usernames else item


def _emptied(value: dict[str, Any]) -> dict[str, Any]:
    kept = {key: item for key, item in value.items() if _is_no_text(key, item)}
    if "content" in value:
        kept["content"] = ""
    return kept | {"erased": True}


def _is_no_text(key: str, item: Any) -> bool:
    return item is None or isinstance(item, int | float) or (key in OURS and isinstance(item, str))
