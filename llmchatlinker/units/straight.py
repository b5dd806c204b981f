"""The straight way of a turn, which most of them go: a first call that is made at once, and its answer.

It reads and writes the same as ``generation.py`` does, and in the same order of locks, but in two or
three round trips at each end and on the driver. What is out of the ordinary is left to the general way:
a turn that must wait, was delivered twice, goes on after a failure, or is to be ended.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import LLM, Chat, Message, Provider
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import success
from llmchatlinker.errors import InvalidData
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import LLMResponseGenerate
from llmchatlinker.providers.base import ChatAnswer
from llmchatlinker.streaming import store
from llmchatlinker.streaming.events import DELTA, USAGE, ending
from llmchatlinker.turns import LOCK_CHAT, RELEASE, Aftermath, released
from llmchatlinker.units import asking, ledger, limits, openings
from llmchatlinker.units.calling import Performed, Turn
from llmchatlinker.units.context import estimated
from llmchatlinker.units.control import parse
from llmchatlinker.units.discovery import endpoint_of
from llmchatlinker.units.handling import Declined
from llmchatlinker.units.routing import Route
from llmchatlinker.units.turn_policies import policy_of
from llmchatlinker.units.views import message_view

#: Whether the LLM is there, and of the provider that is named beside it; and the chat's policy.
_GLANCE = """
    SELECT EXISTS (SELECT FROM llms WHERE id = %(llm_id)s
                      AND provider_id = coalesce(%(provider_id)s, provider_id)),
           (SELECT turn_policy FROM chats WHERE id = %(chat_id)s)
"""


def decoded(data: Data) -> Data | None:
    """What decoding makes of a turn that names ids only and waits for its chat; None: look closer."""
    if not isinstance(data, LLMResponseGenerate) or data.llm_id is None or data.fallbacks:
        return None
    if data.provider_name is not None or data.llm_name is not None:
        return None
    ids = {"llm_id": data.llm_id, "provider_id": data.provider_id, "chat_id": data.chat_id}
    is_there, policy = database().statement(_GLANCE, ids, prepare=True)[0]
    if not is_there or policy_of(data, policy) != "enqueue":
        return None
    return data.model_copy(update={"provider_id": None})


_LOCK = "SELECT FROM instructions WHERE id = %(id)s FOR UPDATE"

_LOCK_ITS_CHAT = """
    SELECT FROM chats WHERE id = (SELECT chat_id FROM instructions WHERE id = %(id)s)
       FOR NO KEY UPDATE
"""

#: Behind both locks: everything that a first call takes, of a turn that may begin.
_READ = """
    SELECT i.data, i.seq, extract(epoch FROM i.deadline_at - clock_timestamp()),
           ARRAY(SELECT i.reply_to WHERE i.follow AND i.reply_to IS NOT NULL UNION
                 SELECT queue FROM waiters WHERE instruction_id = i.id AND following),
           c.id, c.system_prompt, c.active_message_id,
           l.id, l.llm_name, l.settings,
           p.id, p.name, p.kind, p.api_endpoint, p.settings, p.api_key
      FROM instructions i
      JOIN chats c ON c.id = i.chat_id
      JOIN chat_members m ON m.chat_id = c.id AND m.user_id = CAST(i.data->>'user_id' AS int)
      JOIN llms l ON l.id = CAST(i.data->>'llm_id' AS int)
      JOIN providers p ON p.id = l.provider_id
     WHERE i.id = %(id)s AND i.type = 'LLM_RESPONSE_GENERATE'
       AND i.state = 'decoded' AND i.turn = 'queued' AND i.deadline_at > clock_timestamp()
       AND i.cancel_requested IS NULL AND i.not_before IS NULL AND i.llm_id IS NULL
       AND NOT EXISTS (SELECT FROM instructions other
                        WHERE other.chat_id = i.chat_id AND other.id <> i.id
                          AND other.turn IN ('queued', 'active')
                          AND (other.seq < i.seq OR other.turn = 'active'))
       AND NOT EXISTS (SELECT FROM provider_health h WHERE h.provider_id = p.id AND h.failures > 0)
"""


def claim(rows: Rows, instruction_id: UUID, worker: str, aftermath: Aftermath) -> Turn | None:
    """Take the turn; None, or Declined, where it does not go the straight way."""
    id = {"id": str(instruction_id)}
    found = rows(id, _LOCK, _LOCK_ITS_CHAT, _READ)
    if not found:
        return None
    raw, seq, seconds, followers, chat, llm, provider = _taken(found[0])
    data = parse(LLMResponseGenerate, raw, decoded=True)
    if data.parent_message_id is not None:
        return None  # where that is must be looked up
    asked = asking.by_generate(data, chat.active_message_id)
    route = Route(llm, provider, 0, 0, 0, next(iter(asked.llm_ids[1:]), None))
    shared = limits.to_share(route, asked.user_id)
    if shared is None:
        return None
    try:
        request = asking.request_of(rows, chat, asked, route)
    except InvalidData:
        if route.next_llm_id is None:
            raise
        return None  # another LLM can perhaps be asked this
    endpoint = endpoint_of(provider, llm, seconds=seconds)
    estimate = estimated(request.messages, request.parameters.get("tools"))
    opened = openings.open_turn(
        rows, instruction_id, chat, asked, route, worker, estimate, shared=shared, seq=seq
    )
    if opened is None:
        raise Declined  # it must have its limits alone, and to wait for that it must let go of them
    aftermath.events.append((instruction_id, 1, opened.events))
    return Turn(
        instruction_id=instruction_id,
        attempt_id=opened.attempt_id,
        endpoint=endpoint,
        request=request,
        route=route,
        user_id=asked.user_id,
        after=len(opened.events),
        followers=tuple(followers),
    )


def _taken(row: Any) -> tuple[Any, int, float, list[str], Chat, LLM, Provider]:
    raw, seq, seconds, followers, *rest = row
    chat = Chat(**dict(zip(("id", "system_prompt", "active_message_id"), rest[:3], strict=True)))
    llm = LLM(**dict(zip(("id", "llm_name", "settings"), rest[3:6], strict=True)))
    *of_provider, api_key = rest[6:]
    names = ("id", "name", "kind", "api_endpoint", "settings")
    provider = Provider(**dict(zip(names, of_provider, strict=True)))
    provider.api_key = None if api_key is None else bytes(api_key)
    return raw, seq, float(seconds), followers, chat, llm, provider


#: The line in the ledger is closed, and the message has the answer; and whether anybody waits for
#: anything but its turn. Behind the limits' locks: whoever parks has them alone, so it is seen here, or
#: sees that this call has ended. No row, where not both were open, or the turn is to be ended.
_ANSWER = """
    WITH moment AS (
        SELECT clock_timestamp() AS now
    ), line AS (
        UPDATE attempts a
           SET status = 'answered', finished_at = moment.now,
               first_delta_at = CASE WHEN %(has_delta)s THEN coalesce(first_delta_at, moment.now)
                                     ELSE first_delta_at END,
               prompt_tokens = %(prompt_tokens)s, completion_tokens = %(completion_tokens)s,
               total_tokens = %(total_tokens)s, cost = %(cost)s
          FROM instructions i, moment
         WHERE a.id = CAST(%(attempt)s AS bigint) AND a.status = 'started'
           AND i.id = CAST(%(id)s AS uuid) AND i.outcome IS NULL AND i.final_at IS NULL
           AND i.cancel_requested IS NULL AND i.turn = 'active'
        RETURNING i.id
    )
    UPDATE messages m
       SET content = %(content)s, status = 'complete', finish_reason = %(finish_reason)s,
           usage = CAST(%(usage)s AS jsonb), reasoning = %(reasoning)s,
           tool_calls = CAST(%(tool_calls)s AS jsonb)
      FROM line
     WHERE m.instruction_id = CAST(%(id)s AS uuid) AND m.status = 'generating' AND NOT m.erased
    RETURNING m.id, m.parent_id, m.chat_id, m.user_id, m.llm_id, m.llm_name, m.created_at,
              EXISTS (SELECT FROM instructions WHERE /* has a time */ AND state = 'waiting')
""".replace("/* has a time */", limits.HAS_A_TIME)

_END = """
    UPDATE instructions
       SET outcome = CAST(%(outcome)s AS jsonb), state = 'executed', turn = 'done',
           executed_at = now(), published_at = now(), wait_reason = NULL, not_before = NULL
     WHERE id = CAST(%(id)s AS uuid)
"""


def settle(rows: Rows, work: Turn, done: Performed, says: str, aftermath: Aftermath) -> bool:
    """Commit an answer, and the outcome, which ``says`` so; False or Declined as above."""
    said, tail = done.said, done.tail
    if done.error is not None or work.route.failures or tail is None:
        return False
    if not isinstance(said, ChatAnswer):
        return False
    text, price = str(work.instruction_id), work.route.price
    usage = ledger.usage_view(price, done.usage)
    values = {
        "id": text,
        "attempt": work.attempt_id,
        "has_delta": any(event["type"] == DELTA for event in tail.events),
        "prompt_tokens": done.usage.prompt_tokens,
        "completion_tokens": done.usage.completion_tokens,
        "total_tokens": done.usage.total_tokens,
        "cost": ledger.cost(price, done.usage),
        "content": said.content,
        "finish_reason": said.finish_reason,
        "usage": json.dumps(usage),
        "reasoning": said.reasoning,
        "tool_calls": None if said.tool_calls is None else json.dumps(said.tool_calls),
        "limits": limits.to_share(work.route, work.user_id, ended=True),
    }
    found = rows(values, _LOCK, limits.SHARE, _ANSWER)
    if not found:
        raise Declined
    *of_message, somebody_waits = found[0]
    names = ("id", "parent_id", "chat_id", "user_id", "llm_id", "llm_name", "created_at")
    message = Message(
        **dict(zip(names, of_message, strict=True)),
        role="assistant",
        content=said.content,
        status="complete",
        finish_reason=said.finish_reason,
        usage=usage,
        reasoning=said.reasoning,
        tool_calls=said.tool_calls,
    )
    if somebody_waits:
        limits.release(rows, work.route, work.user_id, aftermath)
    outcome = success(text, {"llm_response": message_view(message)}, says)
    events: list[dict[str, Any]] = []
    if usage["total_tokens"] is not None:
        events.append({"type": USAGE, "usage": usage})
    events.append(ending(outcome))
    values = store.tail_values(work.attempt_id, tail, events) | {
        "id": text,
        "outcome": json.dumps(outcome),
        "chat_id": message.chat_id,
    }
    next_turn = rows(values, LOCK_CHAT, _END, store.APPEND_ROWS, RELEASE)
    aftermath.released += released(next_turn)
    aftermath.events.append((work.instruction_id, tail.first, [*tail.events, *events]))
    return True
