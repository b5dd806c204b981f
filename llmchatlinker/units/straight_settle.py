"""The straight way of turns that end: with an answer, and nothing out of the ordinary.

The same as ``generation.py`` does, for several turns in one transaction: see ``straight_claim.py``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import Message
from llmchatlinker.envelope import Envelope, success
from llmchatlinker.providers.base import ChatAnswer
from llmchatlinker.streaming import store
from llmchatlinker.streaming.events import USAGE, ending
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.turns import (
    LOCK_THEIR_CHATS,
    LOCK_TURNS,
    RELEASE,
    THEIRS,
    Aftermath,
    Released,
)
from llmchatlinker.units import ledger, limits, sharing
from llmchatlinker.units.calling import Performed, Turn
from llmchatlinker.units.views import message_view

#: The lines in the ledger are closed, and the messages have the answers; and whether anybody waits for
#: anything but its turn. Behind the limits' locks: whoever parks has them alone, so it is seen here, or
#: sees that these calls have ended. No row of a turn that is to be ended, or not all open, or which
#: somebody else has just locked: a heartbeat locks many, and two of many can wait for each other.
_ANSWER = """
    WITH done AS (
        SELECT *
          FROM jsonb_to_recordset(CAST(%(answers)s AS jsonb))
                 AS d (id uuid, attempt bigint, has_delta boolean, prompt_tokens int,
                       completion_tokens int, total_tokens int, cost numeric, content text,
                       finish_reason text, usage jsonb, reasoning text, tool_calls jsonb)
    ), open AS (
        SELECT done.*, m.id AS message_id
          FROM done
          JOIN instructions i ON i.id = done.id
          JOIN attempts a ON a.id = done.attempt
          JOIN messages m ON m.instruction_id = done.id
         WHERE i.id = ANY (/* theirs */) AND i.outcome IS NULL AND i.final_at IS NULL
           AND i.cancel_requested IS NULL AND i.turn = 'active'
           AND a.status = 'started' AND m.status = 'generating' AND NOT m.erased
           FOR NO KEY UPDATE OF a, m SKIP LOCKED
    ), moment AS (
        SELECT clock_timestamp() AS now
    ), line AS (
        UPDATE attempts a
           SET status = 'answered', finished_at = moment.now,
               first_delta_at = CASE WHEN has_delta THEN coalesce(first_delta_at, moment.now)
                                     ELSE first_delta_at END,
               prompt_tokens = open.prompt_tokens, completion_tokens = open.completion_tokens,
               total_tokens = open.total_tokens, cost = open.cost
          FROM open, moment
         WHERE a.id = open.attempt
    )
    UPDATE messages m
       SET content = open.content, status = 'complete', finish_reason = open.finish_reason,
           usage = open.usage, reasoning = open.reasoning, tool_calls = open.tool_calls
      FROM open
     WHERE m.id = open.message_id
    RETURNING open.attempt, m.id, m.parent_id, m.chat_id, m.user_id, m.llm_id, m.llm_name,
              m.created_at,
              EXISTS (SELECT FROM instructions WHERE /* has a time */ AND state = 'waiting')
""".replace("/* theirs */", THEIRS).replace("/* has a time */", limits.HAS_A_TIME)

_END = """
    UPDATE instructions i
       SET outcome = d.outcome, state = 'executed', turn = 'done', executed_at = now(),
           published_at = now(), wait_reason = NULL, not_before = NULL
      FROM jsonb_to_recordset(CAST(%(ends)s AS jsonb)) AS d (id uuid, outcome jsonb)
     WHERE i.id = d.id
"""


@dataclass(frozen=True, slots=True, eq=False)
class Settlement:
    """A call that was answered. ``says``: the sentence of its success."""

    work: Turn
    done: Performed
    said: ChatAnswer
    tail: Tail
    says: str


def settlement(work: Turn, done: Any, says: str) -> Settlement | None:
    """None where how the call went is out of the ordinary."""
    if not isinstance(done, Performed) or done.error is not None or work.route.failures:
        return None
    if done.tail is None or not isinstance(done.said, ChatAnswer):
        return None
    return Settlement(work, done, done.said, done.tail, says)


def settle(rows: Rows, settlements: Sequence[Settlement]) -> list[Aftermath | None]:
    """Commit answers and outcomes; None for one that does not go the straight way."""
    shared = sharing.Shared()
    for item in settlements:
        shared.add_ended(sharing.to_end(item.work.route, item.work.user_id))
    values = {
        "ids": [str(item.work.instruction_id) for item in settlements],
        "answers": json.dumps([_answer(item) for item in settlements], ensure_ascii=False),
    }
    found = rows(values | shared.values, LOCK_TURNS, LOCK_THEIR_CHATS, sharing.SHARE, _ANSWER)
    if not found:
        return [None] * len(settlements)
    closed = {row[0]: row[1:] for row in found}
    aftermaths: list[Aftermath | None] = []
    tails, ends = store.TailRows(), []
    by_chat: dict[int, Aftermath] = {}
    for item in settlements:
        row = closed.get(item.work.attempt_id)
        if row is None:
            aftermaths.append(None)
            continue
        message, outcome, events = _ending(item, row[:-1])
        ends.append({"id": str(item.work.instruction_id), "outcome": outcome})
        tails.add(item.work.instruction_id, item.work.attempt_id, item.tail, events)
        told = [*item.tail.events, *events]
        aftermath = Aftermath(events=[(item.work.instruction_id, item.tail.first, told)])
        by_chat[message.chat_id] = aftermath
        aftermaths.append(aftermath)
    if found[0][-1]:  # somebody waits
        limits.release(rows, shared.limits, next(iter(by_chat.values())))
    ended: dict[str, Any] = {"ends": json.dumps(ends, ensure_ascii=False), "chats": list(by_chat)}
    for text, type_name, chat_id in rows(ended | tails.values, _END, store.APPEND_ROWS, RELEASE):
        by_chat[chat_id].released += (Released(UUID(text), type_name),)
    return aftermaths


def _answer(item: Settlement) -> dict[str, Any]:
    usage, price = item.done.usage, item.work.route.price
    cost = ledger.cost(price, usage)
    return {
        "id": str(item.work.instruction_id),
        "attempt": item.work.attempt_id,
        "has_delta": store.has_delta(item.tail),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "cost": None if cost is None else str(cost),
        "content": item.said.content,
        "finish_reason": item.said.finish_reason,
        "usage": ledger.usage_view(price, usage),
        "reasoning": item.said.reasoning,
        "tool_calls": item.said.tool_calls,
    }


def _ending(item: Settlement, row: Sequence[Any]) -> tuple[Message, Envelope, list[dict[str, Any]]]:
    """The answer's message, the instruction's outcome, and the stream's last events."""
    usage = ledger.usage_view(item.work.route.price, item.done.usage)
    names = ("id", "parent_id", "chat_id", "user_id", "llm_id", "llm_name", "created_at")
    message = Message(
        **dict(zip(names, row, strict=True)),
        role="assistant",
        content=item.said.content,
        status="complete",
        finish_reason=item.said.finish_reason,
        usage=usage,
        reasoning=item.said.reasoning,
        tool_calls=item.said.tool_calls,
    )
    data = {"llm_response": message_view(message)}
    outcome = success(str(item.work.instruction_id), data, item.says)
    events: list[dict[str, Any]] = []
    if usage["total_tokens"] is not None:
        events.append({"type": USAGE, "usage": usage})
    events.append(ending(outcome))
    return message, outcome, events
