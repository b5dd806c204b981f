"""Pages of a table, read past the ORM: besides answers, lists are what a front-end asks for most.

In a Session a list took two fifths of what its whole instruction took of a worker.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import inspect

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Base
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instruction_data.fields import Page


@lru_cache(maxsize=64)
def _columns(kind: type[Base]) -> tuple[Any, str]:
    """What a row of the table becomes, with the attributes of ``kind``, and its columns in SQL."""
    loaded = [item for item in inspect(kind).column_attrs if not item.deferred]
    named = [item.columns[0].name for item in loaded]
    return namedtuple(kind.__name__, [item.key for item in loaded]), ", ".join(named)


def page(
    rows: Rows, kind: type[Base], window: Page, where: str = "", **values: Any
) -> tuple[list[Any], int | None]:
    """A window of the table by id, and what ``after`` takes for the rest of it (None at the end).

    ``where``: another condition, in SQL, with psycopg2's ``%(name)s`` for ``values``.
    """
    made, names = _columns(kind)
    condition = f"AND {where}" if where else ""
    sql = f"""
        SELECT {names} FROM {kind.__tablename__}
         WHERE id > CAST(%(after)s AS bigint) {condition} ORDER BY id LIMIT %(limit)s
    """  # noqa: S608  # of names that stand in this code; values go as values
    values |= {"after": window.after or 0, "limit": window.limit + 1}
    found = [made(*row) for row in rows(values, sql)]
    if len(found) <= window.limit:
        return found, None
    return found[: window.limit], found[window.limit - 1].id


def row(rows: Rows, kind: type[Base], row_id: int, missing: LLMChatLinkerError) -> Any:
    """The row of that id; ``missing`` is raised where there is none."""
    made, names = _columns(kind)
    sql = f"SELECT {names} FROM {kind.__tablename__} WHERE id = %(id)s"  # noqa: S608  # as above
    for found in rows({"id": row_id}, sql):
        return made(*found)
    raise missing


_MEMBERS = """
    SELECT m.chat_id, u.id, u.username, u.display_name
      FROM chat_members m JOIN users u ON u.id = m.user_id
     WHERE m.chat_id = ANY(CAST(%(chat_ids)s AS int[])) ORDER BY u.id
"""


class Member(NamedTuple):
    """What a chat shows of its members."""

    id: int
    username: str
    display_name: str | None


def members(rows: Rows, chat_ids: Sequence[int]) -> dict[int, list[Member]]:
    """The members of each chat, in the order of their ids."""
    result: dict[int, list[Member]] = {chat_id: [] for chat_id in chat_ids}
    for chat_id, *member in rows({"chat_ids": list(chat_ids)}, _MEMBERS) if chat_ids else ():
        result[chat_id].append(Member(*member))
    return result
