"""How a turn opens: its place in the chat, its messages, its line in the ledger."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Attempt, Chat, Instruction, Message
from llmchatlinker.errors import NotFound
from llmchatlinker.leases import lease_end
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.events import CREATED, FALLBACK
from llmchatlinker.units.asking import Asked
from llmchatlinker.units.routing import Route
from llmchatlinker.units.sharing import COUNTED, COUNTS, FULL, SHARE, STRIPE, Shared, note_counted

#: One statement for any number of turns: the questions, unless there is one, the answers to come, the
#: chats that end with them now, the turns' places, the lines in the ledger, and the streams' first
#: events. Answers are made *from* questions, so that their ids are the larger ones. Nothing of a turn,
#: and no row, where one of its ``limits`` may be full.
_OPEN = (
    """
    WITH turns AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(%(turns)s AS jsonb))
                 AS t (id uuid, chat_id int, parent_id bigint, user_id int, content text, parts jsonb,
                       question_id bigint, llm_id int, llm_name text, provider_id int,
                       provider_name text, worker text, estimate int, previous bigint, limits jsonb,
                       created jsonb, more jsonb)
    ), /* counted */, room AS (
        SELECT * FROM turns
         WHERE NOT EXISTS (SELECT FROM (/* full */) AS full_ones WHERE turns.limits ? key)
    ), question AS (
        INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, parts)
        SELECT chat_id, parent_id, user_id, id, 'user', content, parts
          FROM room WHERE question_id IS NULL
        RETURNING id, instruction_id
    ), asked AS (
        SELECT room.*, coalesce(question_id, question.id) AS asked_id
          FROM room LEFT JOIN question ON question.instruction_id = room.id
    ), answer AS (
        INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, status,
                              llm_id, llm_name)
        SELECT chat_id, asked_id, user_id, id, 'assistant', '', 'generating', llm_id, llm_name
          FROM asked
        RETURNING id, parent_id, chat_id, instruction_id
    ), line AS (
        INSERT INTO attempts (instruction_id, number, user_id, llm_id, provider_id, provider_name,
                              llm_name, worker, estimated_tokens, started_at, lease_until)
        SELECT asked.id, 1, user_id, llm_id, provider_id, provider_name, llm_name, worker, estimate,
               clock_timestamp(),  -- and not when the wait for the locks began
               clock_timestamp() + make_interval(secs => %(lease)s)
          FROM asked
        RETURNING id, instruction_id
    ), chat AS (
        UPDATE chats SET active_message_id = answer.id, updated_at = now()
          FROM answer
         WHERE chats.id = answer.chat_id
    ), place AS (
        UPDATE instructions
           SET turn = 'active', previous_message_id = room.previous, not_before = NULL
          FROM room
         WHERE instructions.id = room.id
    ), told AS (
        INSERT INTO events (instruction_id, first, last, attempt_id, events)
        SELECT room.id, 1, 1 + jsonb_array_length(more), line.id,
               jsonb_build_array(created || jsonb_build_object(
                   'message_id', answer.id, 'parent_message_id', answer.parent_id)) || more
          FROM room
          JOIN answer ON answer.instruction_id = room.id
          JOIN line ON line.instruction_id = room.id
    )
    SELECT CAST(answer.instruction_id AS text), answer.id, answer.parent_id, line.id, /* counts */
      FROM answer JOIN line ON line.instruction_id = answer.instruction_id
""".replace("/* counted */", COUNTED)
    .replace("/* full */", FULL)
    .replace("/* counts */", COUNTS)
)


@dataclass(frozen=True, slots=True)
class Opening:
    """A turn that is to be opened: who asks what, where and of whom.

    ``limits``: the keys of those that it does not have alone.
    """

    instruction_id: UUID
    chat: Chat
    asked: Asked
    route: Route
    worker: str
    estimate: int
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt that may be made now, and the events that tell of it; a first one's are stored."""

    attempt_id: int
    events: list[dict[str, Any]]


#: Behind the chat's lock: what this sees, nobody changes before the turn is taken.
_STANDING = """
    SELECT EXISTS (SELECT FROM instructions other
                    WHERE other.chat_id = i.chat_id AND other.id <> i.id
                      AND other.turn IN ('queued', 'active')
                      AND (other.seq < i.seq OR other.turn = 'active')),
           extract(epoch FROM i.deadline_at - clock_timestamp()),
           EXISTS (SELECT FROM users WHERE id = %(user_id)s),
           EXISTS (SELECT FROM chat_members
                    WHERE chat_id = i.chat_id AND user_id = %(user_id)s),
           ARRAY(SELECT queue FROM waiters WHERE instruction_id = i.id AND following)
      FROM instructions i WHERE i.id = CAST(%(id)s AS uuid)
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a turn stands in its chat.

    ``is_behind``: another turn is before it. ``seconds_left``: until its deadline. ``followers``: the
    queues of those who follow the response from its beginning.
    """

    is_behind: bool
    seconds_left: float
    user_exists: bool
    is_member: bool
    followers: tuple[str, ...]


def standing(session: Session, instruction: Instruction, user_id: int | None) -> Standing:
    """Read it; ``user_id``: who speaks. The chat's row is locked."""
    values = {"id": str(instruction.id), "user_id": user_id}
    row = session.connection().exec_driver_sql(_STANDING, values).one()
    queues = list(row[4])
    if instruction.follow and instruction.reply_to is not None:
        queues.insert(0, instruction.reply_to)
    return Standing(row[0], float(row[1]), row[2], row[3], tuple(dict.fromkeys(queues)))


def answer_of(session: Session, instruction: Instruction) -> Message:
    """The answer that an earlier attempt has opened."""
    answer = session.scalars(
        select(Message).where(
            Message.instruction_id == instruction.id, Message.status == "generating"
        )
    ).first()
    if answer is None:
        raise NotFound("Something that the instruction refers to was deleted meanwhile.")
    return answer


def open_turns(
    rows: Rows, openings: Sequence[Opening], shared: Shared | None = None
) -> dict[UUID, Opened]:
    """The turns' first attempts, by their instructions; their events are stored.

    ``shared``: the limits that they don't have alone. What may be beyond one of them is not opened.
    """
    created = {opening.instruction_id: _created(opening) for opening in openings}
    more = {
        opening.instruction_id: []
        if opening.route.instead_of is None
        else [_fallback(opening.route)]
        for opening in openings
    }
    turns = [
        {
            "id": str(opening.instruction_id),
            "chat_id": opening.chat.id,
            "parent_id": opening.asked.parent_id,
            "user_id": opening.asked.user_id,
            "content": opening.asked.text,
            "parts": opening.asked.parts,
            "question_id": opening.asked.question_id,
            "llm_id": opening.route.llm.id,
            "llm_name": opening.route.llm.llm_name,
            "provider_id": opening.route.provider.id,
            "provider_name": opening.route.provider.name,
            "worker": opening.worker,
            "estimate": opening.estimate,
            "previous": opening.chat.active_message_id,
            "limits": opening.limits,
            "created": created[opening.instruction_id],
            "more": more[opening.instruction_id],
        }
        for opening in openings
    ]
    values = {
        "turns": json.dumps(turns, ensure_ascii=False),
        "lease": get_settings().lease,
        "limits": "[]",
    }
    locks = () if shared is None else (SHARE, STRIPE)
    found = rows(values | ({} if shared is None else shared.values), *locks, _OPEN)
    opened: dict[UUID, Opened] = {}
    for text, message_id, parent_id, attempt_id, *counts in found:
        note_counted(*counts)
        instruction_id = UUID(text)
        ids = {"message_id": message_id, "parent_message_id": parent_id}
        events = [created[instruction_id] | ids, *more[instruction_id]]
        opened[instruction_id] = Opened(attempt_id, events)
    return opened


def _created(opening: Opening) -> dict[str, Any]:
    return {
        "type": CREATED,
        "chat_id": opening.chat.id,
        "llm_id": opening.route.llm.id,
        "llm_name": opening.route.llm.llm_name,
        "provider_name": opening.route.provider.name,
    }


def open_again(
    session: Session,
    instruction: Instruction,
    answer: Message,
    asked: Asked,
    route: Route,
    worker: str,
    estimate: int,
) -> Opened:
    """A further attempt at an answer that is open already."""
    attempt = Attempt(
        instruction_id=instruction.id,
        number=route.made + 1,
        user_id=asked.user_id,
        llm_id=route.llm.id,
        provider_id=route.provider.id,
        provider_name=route.provider.name,
        llm_name=route.llm.llm_name,
        worker=worker,
        estimated_tokens=estimate,
        started_at=func.clock_timestamp(),
        lease_until=lease_end(),
    )
    session.add(attempt)
    instruction.not_before = None
    session.flush()
    if route.instead_of is None:
        return Opened(attempt.id, [])
    session.execute(
        update(Message)
        .where(Message.id == answer.id)
        .values(llm_id=route.llm.id, llm_name=route.llm.llm_name)
        .execution_options(synchronize_session=False)
    )
    return Opened(attempt.id, [_fallback(route)])


def _fallback(route: Route) -> dict[str, Any]:
    return {
        "type": FALLBACK,
        "llm_id": route.llm.id,
        "llm_name": route.llm.llm_name,
        "provider_name": route.provider.name,
        "instead_of": route.instead_of,
        "reason": route.reason,
    }
