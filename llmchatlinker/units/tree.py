"""The tree of a chat's messages: the way from a message up to the root, read in one query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Integer, literal, select
from sqlalchemy.orm import Session, aliased

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Message


def path_to(session: Session, message_id: int | None, limit: int) -> list[Message]:
    """The message and its ancestors, oldest first, at most ``limit`` of them from the end.

    The recursion climbs only as far as ``limit``: a chat of 100 000 messages costs what a short
    one does.
    """
    if message_id is None:
        return []
    climb = (
        select(Message.id, Message.parent_id, literal(1, Integer).label("height"))
        .where(Message.id == message_id)
        .cte("climb", recursive=True)
    )
    above = aliased(Message)
    climb = climb.union_all(
        select(above.id, above.parent_id, climb.c.height + 1)
        .join(climb, above.id == climb.c.parent_id)
        .where(climb.c.height < limit)
    )
    rows = session.scalars(
        select(Message).join(climb, Message.id == climb.c.id).order_by(climb.c.height.desc())
    )
    return list(rows)


@dataclass(frozen=True, slots=True)
class Told:
    """A message as a provider is told of it."""

    id: int
    parent_id: int | None
    role: str
    content: str = field(repr=False)
    parts: list[dict[str, Any]] | None = field(repr=False)
    erased: bool
    hidden: bool
    status: str = "complete"
    tool_calls: list[dict[str, Any]] | None = field(default=None, repr=False)

    @property
    def is_said(self) -> bool:
        """There is something of it. Calls of tools count once they are whole."""
        return bool(self.content or (self.tool_calls and self.status == "complete"))


#: On the driver: every generation asks this, and the ORM took half of its claim for it. ``LATERAL`` and
#: ``OFFSET 0``: one look into the index for each message. The plan is kept, and one that was made while
#: the table was small would otherwise join, and read all of it for each.
_TOLD = """
    WITH RECURSIVE climb AS (
        SELECT top.id AS top, m.id, m.parent_id, m.role, m.content, m.parts, m.erased, m.hidden,
               m.status, m.tool_calls, 1 AS height
          FROM unnest(CAST(%(ids)s AS bigint[])) AS top (id)
         CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = top.id OFFSET 0) m
        UNION ALL
        SELECT climb.top, m.id, m.parent_id, m.role, m.content, m.parts, m.erased, m.hidden,
               m.status, m.tool_calls, climb.height + 1
          FROM climb
         CROSS JOIN LATERAL (SELECT * FROM messages WHERE id = climb.parent_id OFFSET 0) m
         WHERE climb.height < %(limit)s
    )
    SELECT top, id, parent_id, role, content, parts, erased, hidden, status, tool_calls
      FROM climb ORDER BY height DESC
"""


def told_up_to(
    rows: Rows, message_ids: Iterable[int | None], limit: int
) -> dict[int | None, list[Told]]:
    """The same as ``path_to`` for several messages, of each message what a provider is told."""
    ids = {message_id for message_id in message_ids if message_id is not None}
    told: dict[int | None, list[Told]] = {message_id: [] for message_id in (None, *ids)}
    if ids:
        for top, *of_message in rows({"ids": list(ids), "limit": limit}, _TOLD):
            told[top].append(Told(*of_message))
    return told


def newest_answer(session: Session, question_id: int) -> Message | None:
    """The youngest answer to a question."""
    return session.scalars(
        select(Message)
        .where(Message.parent_id == question_id, Message.role == "assistant", ~Message.hidden)
        .order_by(Message.id.desc())
        .limit(1)
    ).first()
