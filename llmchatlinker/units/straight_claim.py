"""The straight way of turns that begin: first calls that can be made at once.

It reads and writes the same as ``generation.py`` does, and in the same order of locks, but for several
turns in one transaction, and in two or three round trips on the driver. What is out of the ordinary is
left to the general way: a turn that must wait, was delivered twice, goes on after a failure, is to be
ended, or is just in somebody else's hands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import LLM, Chat, Provider
from llmchatlinker.db.together import PUT_OFF, PutOff
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instruction_data.llm import LLMResponseGenerate
from llmchatlinker.providers.base import ChatRequest, Endpoint
from llmchatlinker.turns import LOCK_THEIR_CHATS, LOCK_TURNS, THEIRS, Aftermath
from llmchatlinker.units import asking, openings, sharing
from llmchatlinker.units.asking import Asked
from llmchatlinker.units.calling import Turn
from llmchatlinker.units.context import estimated
from llmchatlinker.units.control import parse
from llmchatlinker.units.discovery import endpoint_of
from llmchatlinker.units.limits import Limit
from llmchatlinker.units.openings import Opening
from llmchatlinker.units.routing import Route

#: Behind both locks: everything that first calls take, of turns that may begin. What messages and lines
#: in the ledger refer to is locked as it will be then, so that nobody's deletion holds up the others.
_READ = """
    SELECT CAST(i.id AS text), i.data, i.seq, extract(epoch FROM i.deadline_at - clock_timestamp()),
           ARRAY(SELECT i.reply_to WHERE i.follow AND i.reply_to IS NOT NULL UNION
                 SELECT queue FROM waiters WHERE instruction_id = i.id AND following),
           c.id, c.system_prompt, c.active_message_id,
           l.id, l.llm_name, l.settings,
           p.id, p.name, p.kind, p.api_endpoint, p.settings, p.api_key
      FROM instructions i
      JOIN chats c ON c.id = i.chat_id
      JOIN chat_members m ON m.chat_id = c.id AND m.user_id = CAST(i.data->>'user_id' AS int)
      JOIN users u ON u.id = m.user_id
      JOIN llms l ON l.id = CAST(i.data->>'llm_id' AS int)
      JOIN providers p ON p.id = l.provider_id
     WHERE i.id = ANY (/* theirs */) AND i.type = 'LLM_RESPONSE_GENERATE'
       AND i.state = 'decoded' AND i.turn = 'queued' AND i.deadline_at > clock_timestamp()
       AND i.cancel_requested IS NULL AND i.not_before IS NULL AND i.llm_id IS NULL
       AND NOT EXISTS (SELECT FROM instructions other
                        WHERE other.chat_id = i.chat_id AND other.id <> i.id
                          AND other.turn IN ('queued', 'active')
                          AND (other.seq < i.seq OR other.turn = 'active'))
       AND NOT EXISTS (SELECT FROM provider_health h WHERE h.provider_id = p.id AND h.failures > 0)
       FOR KEY SHARE OF u, l, p SKIP LOCKED
""".replace("/* theirs */", THEIRS)


@dataclass(frozen=True, slots=True)
class Claim:
    """A turn that is to begin. ``worker``: the delivery that has come to it."""

    instruction_id: UUID
    worker: str


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a turn that may begin, and what follows from that."""

    claim: Claim
    seq: int
    seconds: float
    followers: tuple[str, ...]
    chat: Chat
    asked: Asked
    route: Route
    limits: list[Limit]


Claimed = tuple[Turn, Aftermath]


def claim(rows: Rows, claims: Sequence[Claim]) -> list[Claimed | PutOff | None]:
    """Take the turns; None for one that does not go the straight way."""
    ids = [str(claim.instruction_id) for claim in claims]
    found = {row[0]: row[1:] for row in rows({"ids": ids}, LOCK_TURNS, LOCK_THEIR_CHATS, _READ)}
    llms: dict[int, tuple[LLM, Provider]] = {}
    shared, begin, put_off = sharing.Shared(), [], set()
    for text, claim in zip(ids, claims, strict=True):
        # What is delivered twice at the same moment is there once.
        turn = _read(claim, found.pop(text), llms) if text in found else None
        if turn is None:
            continue
        if shared.add(turn.limits, turn.seq):
            begin.append(turn)
        else:
            put_off.add(claim)
    taken = _open(rows, begin, shared) if begin else {}
    return [PUT_OFF if claim in put_off else taken.get(claim) for claim in claims]


def _read(claim: Claim, row: Sequence[Any], llms: dict[int, tuple[LLM, Provider]]) -> _Read | None:
    raw, seq, seconds, followers, *rest = row
    chat = Chat(**dict(zip(("id", "system_prompt", "active_message_id"), rest[:3], strict=True)))
    if rest[3] not in llms:
        llms[rest[3]] = _llm(rest[3:])
    llm, provider = llms[rest[3]]
    try:
        data = parse(LLMResponseGenerate, raw, decoded=True)
    except LLMChatLinkerError:
        return None
    if data.parent_message_id is not None:
        return None  # where that is must be looked up
    asked = asking.by_generate(data, chat.active_message_id)
    route = Route(llm, provider, 0, 0, 0, next(iter(asked.llm_ids[1:]), None))
    limits = sharing.to_open(route, asked.user_id)
    if limits is None:
        return None
    return _Read(claim, seq, float(seconds), tuple(followers), chat, asked, route, limits)


def _llm(row: Sequence[Any]) -> tuple[LLM, Provider]:
    llm = LLM(**dict(zip(("id", "llm_name", "settings"), row[:3], strict=True)))
    *of_provider, api_key = row[3:]
    names = ("id", "name", "kind", "api_endpoint", "settings")
    provider = Provider(**dict(zip(names, of_provider, strict=True)))
    provider.api_key = None if api_key is None else bytes(api_key)
    return llm, provider


def _open(rows: Rows, turns: Sequence[_Read], shared: sharing.Shared) -> dict[Claim, Claimed]:
    """Open those that can be asked, and that none of their limits may have to turn away."""
    requests = asking.requests_of(rows, [(turn.chat, turn.asked, turn.route) for turn in turns])
    ready: list[tuple[_Read, ChatRequest, Endpoint, Opening]] = []
    for turn, request in zip(turns, requests, strict=True):
        if not isinstance(request, ChatRequest):
            continue  # another LLM can perhaps be asked this
        try:
            endpoint = endpoint_of(turn.route.provider, turn.route.llm, seconds=turn.seconds)
        except LLMChatLinkerError:
            continue
        opening = Opening(
            turn.claim.instruction_id,
            turn.chat,
            turn.asked,
            turn.route,
            turn.claim.worker,
            estimated(request.messages, request.parameters.get("tools")),
            tuple(limit.key for limit in turn.limits),
        )
        ready.append((turn, request, endpoint, opening))
    if not ready:
        return {}
    opened = openings.open_turns(rows, [opening for *_, opening in ready], shared)
    taken: dict[Claim, Claimed] = {}
    for turn, request, endpoint, opening in ready:
        found = opened.get(opening.instruction_id)
        if found is None:
            continue  # it must have its limits alone, and to wait for that let go of them
        work = Turn(
            instruction_id=opening.instruction_id,
            attempt_id=found.attempt_id,
            endpoint=endpoint,
            request=request,
            route=turn.route,
            user_id=turn.asked.user_id,
            after=len(found.events),
            followers=turn.followers,
        )
        taken[turn.claim] = work, Aftermath(events=[(work.instruction_id, 1, found.events)])
    return taken
