"""How a turn opens: its place in the chat, its messages, its line in the ledger."""

from __future__ import annotations

import json
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
from llmchatlinker.units.limits import COUNTED, COUNTS, FULL, SHARE, STRIPE, note_counted
from llmchatlinker.units.routing import Route

#: One statement: the question, unless there is one, the answer to come, the chat that ends with it
#: now, the turn's place, the line in the ledger, and the stream's first events. The answer is made
#: *from* the question, so that its id is the larger one. Nothing of it, and no row, where one of
#: ``limits`` may be full.
_OPEN = (
    """
    WITH /* counted */, room AS (
        SELECT WHERE NOT EXISTS (/* full */)
    ), question AS (
        INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, parts)
        SELECT %(chat_id)s, %(parent_id)s, %(user_id)s, CAST(%(id)s AS uuid), 'user', %(content)s,
               CAST(%(parts)s AS jsonb)
          FROM room
         WHERE CAST(%(question_id)s AS bigint) IS NULL
        RETURNING id
    ), asked AS (
        SELECT id FROM question
        UNION ALL
        SELECT CAST(%(question_id)s AS bigint) FROM room
         WHERE CAST(%(question_id)s AS bigint) IS NOT NULL
    ), answer AS (
        INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, status,
                              llm_id, llm_name)
        SELECT %(chat_id)s, asked.id, %(user_id)s, CAST(%(id)s AS uuid), 'assistant', '',
               'generating', %(llm_id)s, %(llm_name)s
          FROM asked
        RETURNING id, parent_id
    ), line AS (
        INSERT INTO attempts (instruction_id, number, user_id, llm_id, provider_id, provider_name,
                              llm_name, worker, estimated_tokens, started_at, lease_until)
        SELECT CAST(%(id)s AS uuid), 1, %(user_id)s, %(llm_id)s, %(provider_id)s,
               %(provider_name)s, %(llm_name)s, %(worker)s, %(estimate)s,
               clock_timestamp(),  -- and not when the wait for the locks began
               clock_timestamp() + make_interval(secs => %(lease)s)
          FROM answer
        RETURNING id
    ), chat AS (
        UPDATE chats SET active_message_id = answer.id, updated_at = now() FROM answer
         WHERE chats.id = %(chat_id)s
    ), place AS (
        UPDATE instructions
           SET turn = 'active', previous_message_id = %(previous)s, not_before = NULL
          FROM answer
         WHERE instructions.id = CAST(%(id)s AS uuid)
    ), told AS (
        INSERT INTO events (instruction_id, first, last, attempt_id, events)
        SELECT CAST(%(id)s AS uuid), 1, 1 + jsonb_array_length(CAST(%(more)s AS jsonb)), line.id,
               jsonb_build_array(CAST(%(created)s AS jsonb) || jsonb_build_object(
                   'message_id', answer.id, 'parent_message_id', answer.parent_id))
               || CAST(%(more)s AS jsonb)
          FROM answer, line
    )
    SELECT answer.id, answer.parent_id, line.id, /* counts */ FROM answer, line
""".replace("/* counted */", COUNTED)
    .replace("/* full */", FULL)
    .replace("/* counts */", COUNTS)
)


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


def open_turn(
    rows: Rows,
    instruction_id: UUID,
    chat: Chat,
    asked: Asked,
    route: Route,
    worker: str,
    estimate: int,
    *,
    shared: str | None = None,
    seq: int = 0,
) -> Opened | None:
    """The turn's first attempt; its events are stored.

    ``shared``: the limits that the turn does not have alone (``limits.to_share``), with the turn's
    place in the order of submission; None is returned where one of them may be full.
    """
    created = {
        "type": CREATED,
        "chat_id": chat.id,
        "llm_id": route.llm.id,
        "llm_name": route.llm.llm_name,
        "provider_name": route.provider.name,
    }
    more = [] if route.instead_of is None else [_fallback(route)]
    values = {
        "id": str(instruction_id),
        "chat_id": chat.id,
        "parent_id": asked.parent_id,
        "user_id": asked.user_id,
        "content": asked.text,
        "parts": None if asked.parts is None else json.dumps(asked.parts, ensure_ascii=False),
        "question_id": asked.question_id,
        "llm_id": route.llm.id,
        "llm_name": route.llm.llm_name,
        "provider_id": route.provider.id,
        "provider_name": route.provider.name,
        "worker": worker,
        "estimate": estimate,
        "lease": get_settings().lease,
        "previous": chat.active_message_id,
        "created": json.dumps(created),
        "more": json.dumps(more),
        "limits": shared or "[]",
        "seq": seq,
    }
    locks = () if shared is None else (SHARE, STRIPE)
    found = rows(values, *locks, _OPEN)
    if not found:
        return None
    message_id, parent_id, attempt_id, *counts = found[0]
    note_counted(*counts)
    ids = {"message_id": message_id, "parent_message_id": parent_id}
    return Opened(attempt_id, [created | ids, *more])


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
