"""The tree of a chat's messages: the way from a message up to the root, read in one query."""

from __future__ import annotations

from sqlalchemy import Integer, literal, select
from sqlalchemy.orm import Session, aliased

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


def newest_answer(session: Session, question_id: int) -> Message | None:
    """The youngest answer to a question."""
    return session.scalars(
        select(Message)
        .where(Message.parent_id == question_id, Message.role == "assistant", ~Message.hidden)
        .order_by(Message.id.desc())
        .limit(1)
    ).first()
