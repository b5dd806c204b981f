"""What must hold when a round is over, whatever was broken in it.

Four memories are compared: the clients' (``journal.py``), PostgreSQL's, RabbitMQ's and the provider's.
Nothing here judges by time, but for the patience in which the system has to become quiet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from amqp.exceptions import AMQPError
from kombu import Connection

from benchmarks.servers import Place
from faults.journal import Journal, Memory
from faults.plan import Plan, Step, Track
from faults.provider import CountingProvider, answer_to
from llmchatlinker.settings import Settings
from llmchatlinker.topology import DEAD_LETTER_QUEUE, QUEUE_NAMES
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError

LOOK = 0.3  # seconds between two looks at a system that is to become quiet
ASK = 30.0  # seconds that RabbitMQ gets for an answer
BESIDES = 4  # connections to RabbitMQ of a process, besides its pool
PATIENT = {"read_timeout": ASK, "write_timeout": ASK}
GENERATE = "LLM_RESPONSE_GENERATE"

_BUSY = """
    SELECT (SELECT count(*) FROM instructions WHERE final_at IS NULL),
           (SELECT count(*) FROM instructions WHERE turn IN ('queued', 'active')),
           (SELECT count(*) FROM attempts WHERE status = 'started'),
           (SELECT count(*) FROM messages WHERE status = 'generating'),
           (SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%%')
"""
_BUSY_NAMES = (
    "open instructions",
    "turns not done",
    "calls started in the ledger",
    "messages generating",
    "connections in a transaction",
)
_ROWS = """
    SELECT CAST(id AS text),
           coalesce(data ->> 'title', data ->> 'user_input', data ->> 'username'), state, outcome
      FROM instructions WHERE seq > %s
"""
_LINES = """
    SELECT CAST(instruction_id AS text), status, count(*) FROM attempts
     WHERE instruction_id IN (SELECT id FROM instructions WHERE seq > %s) GROUP BY 1, 2
"""
_TITLES = "SELECT title, count(*) FROM chats WHERE title = ANY(%s) GROUP BY 1"
_MESSAGES = """
    SELECT id, parent_id, CAST(instruction_id AS text), role, status, content, hidden
      FROM messages WHERE chat_id = %s ORDER BY id
"""
_EVENTS = """
    SELECT first, last, events FROM events WHERE instruction_id = CAST(%s AS uuid) ORDER BY first
"""


@dataclass
class Verdict:
    """A round's figures, and every broken promise as a sentence."""

    accepted: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    unledgered: int = 0
    in_doubt: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def breach(self, sentence: str) -> None:
        """A promise that is broken."""
        self.breaches.append(sentence)


def busy(place: Place) -> str:
    """What PostgreSQL has that is not at its end; empty when it is quiet."""
    (counts,) = place.sql(_BUSY)
    return ", ".join(f"{n} {name}" for n, name in zip(counts, _BUSY_NAMES, strict=True) if n)


def queued(place: Place, rabbitmq: PrivateRabbitMQ, workers: int) -> str:
    """What RabbitMQ has that is not at its end, consumers that are missing included."""
    # Of a quorum queue only a declaration is told the figures of now; the node's own list, which has
    # what is unacknowledged, is up to five seconds old (rabbit_quorum_queue.erl, tick).
    unacknowledged = {name: row[1] for name, row in rabbitmq.queues(place.name).items()}
    wrong = []
    with Connection(place.broker_url, connect_timeout=ASK, transport_options=PATIENT) as asking:
        for name in (*QUEUE_NAMES, DEAD_LETTER_QUEUE):
            told = asking.default_channel.queue_declare(name, passive=True)
            if told.message_count or unacknowledged.get(name):
                left = unacknowledged.get(name, 0)
                wrong.append(f"{name}: {told.message_count} ready, {left} unacknowledged")
            if name != DEAD_LETTER_QUEUE and told.consumer_count != workers:
                wrong.append(f"{name}: {told.consumer_count} of {workers} consumers")
    return ", ".join(wrong)


def wait_until_quiet(place: Place, rabbitmq: PrivateRabbitMQ, workers: int, patience: float) -> str:
    """Return an empty text once nothing is under way; what still is, when patience is over."""
    end = time.monotonic() + patience
    while True:
        try:
            left = busy(place) or queued(place, rabbitmq, workers)
        except (psycopg2.Error, RabbitMQError, OSError, AMQPError) as error:
            left = f"{type(error).__name__}: {error}"
        if not left or time.monotonic() > end:
            return left
        time.sleep(LOOK)


def too_many(connections: dict[str, int], processes: int) -> list[str]:
    """Connections beyond what that many processes may have by their settings.

    ``connections``: to PostgreSQL, all of which are a pool's, and to RabbitMQ, where a process has a
    few besides: those that consume, the one for remote control, the one for events.
    """
    settings = Settings()
    allowed = {
        "postgresql": processes * settings.database_pool_size,
        "rabbitmq": processes * (settings.broker_pool_size + BESIDES),
    }
    return [
        f"{connections[name]} connections to {name}, {most} are configured"
        for name, most in allowed.items()
        if connections[name] > most
    ]


class Check:
    """The comparison of one round. ``after``: the last seq before it; ``allowed``: codes that may be."""

    def __init__(
        self,
        place: Place,
        provider: CountingProvider,
        plan: Plan,
        journal: Journal,
        after: int,
        allowed: Iterable[str],
    ) -> None:
        self.verdict = Verdict(breaches=list(journal.defects))
        self._place = place
        self._calls = provider.calls_of
        self._plan = plan
        self._journal = journal
        self._allowed = {"success", *allowed}
        self._rows: dict[str, tuple[str, str, Any]] = {}
        self._of_tag: dict[str, list[str]] = {}
        for known, text, state, outcome in place.sql(_ROWS, after):
            self._rows[known] = (text, state, outcome)
            if text:
                self._of_tag.setdefault(text.split()[0], []).append(known)
        self._lines: dict[str, Counter[str]] = {}
        for known, status, count in place.sql(_LINES, after):
            self._lines.setdefault(known, Counter())[status] = count

    def run(self) -> Verdict:
        """All of it."""
        self._envelopes()
        self._effects()
        self._ledger()
        for track in self._plan.tracks:
            if track.chat_id is not None:
                self._chat(track)
        return self.verdict

    # --- each accepted id has exactly one envelope ------------------------------------------------

    def _envelopes(self) -> None:
        verdict = self.verdict
        for step in self._plan.steps:
            memory = self._journal.of(step.tag)
            verdict.refused += len(memory.refusals)
            if set(memory.refusals) - {"unavailable"}:
                verdict.breach(f"{step.tag}: refused with {memory.refusals}")
            for known in self._of_tag.get(step.tag, []):
                if known != memory.id and self._rows[known][1] != "withdrawn":
                    verdict.duplicated += 1
                    verdict.breach(f"{step.tag}: refused, and ran all the same as {known}")
            if memory.id is None:
                if not memory.refusals:
                    verdict.breach(f"{step.tag}: neither accepted nor refused")
                continue
            if memory.uncertain and self._withdrawn(memory):
                continue
            verdict.accepted += 1
            verdict.ends[self._end(step, memory)] += 1
            self._envelope(step.tag, memory)

    def _end(self, step: Step, memory: Memory) -> str:
        code = memory.code or "none"
        if code != "cancelled":
            return code
        if memory.envelopes[0]["data"].get("llm_response", {}).get("content"):
            return "cancelled in mid-answer"
        return "cancelled in its call" if self._calls[step.tag] else "cancelled before"

    def _withdrawn(self, memory: Memory) -> bool:
        row = self._rows.get(memory.id or "")
        return row is None or row[1] == "withdrawn"

    def _envelope(self, tag: str, memory: Memory) -> None:
        verdict = self.verdict
        row = self._rows.get(memory.id or "")
        if row is None or row[1] != "final" or not memory.envelopes:
            verdict.lost += 1
            state = "gone" if row is None else row[1]
            verdict.breach(f"{tag}: {memory.id} is {state}, its client has {memory.missing}")
            return
        if any(envelope != row[2] for envelope in memory.envelopes):
            verdict.breach(f"{tag}: {memory.id} has another envelope than its client got")
        if memory.code not in self._allowed:
            said = memory.envelopes[0].get("message")
            verdict.breach(f"{tag}: {memory.id} ended with {memory.code}: {said}")

    # --- effects, once ----------------------------------------------------------------------------

    def _effects(self) -> None:
        tags = [step.tag for step in self._plan.steps if step.type == "CHAT_CREATE"]
        made = dict(self._place.sql(_TITLES, tags))
        for tag in tags:
            count, wanted = made.get(tag, 0), self._journal.of(tag).code == "success"
            if count > 1 or (count and not wanted):
                self.verdict.duplicated += 1
                self.verdict.breach(f"{tag}: {count} chats, its client has {wanted=}")
            elif wanted and not count:
                self.verdict.lost += 1
                self.verdict.breach(f"{tag}: no chat, though its client was told so")

    # --- calls and lines --------------------------------------------------------------------------

    def _ledger(self) -> None:
        verdict = self.verdict
        for step in self._plan.steps:
            if step.type != GENERATE:
                continue
            lines: Counter[str] = sum(
                (self._lines.get(known, Counter()) for known in self._of_tag.get(step.tag, [])),
                Counter(),
            )
            calls = self._calls[step.tag]
            verdict.in_doubt += lines["in_doubt"]
            if calls > lines.total():
                verdict.unledgered += calls - lines.total()
                verdict.breach(f"{step.tag}: {calls} calls, lines {dict(lines)}")
            if lines["answered"] > calls:
                verdict.breach(f"{step.tag}: {calls} calls, answered {lines['answered']} times")

    # --- what was said ----------------------------------------------------------------------------

    def _chat(self, track: Track) -> None:
        verdict = self.verdict
        messages = {row[0]: row for row in self._place.sql(_MESSAGES, track.chat_id)}
        active = self._place.sql("SELECT active_message_id FROM chats WHERE id = %s", track.chat_id)
        of: dict[str, list[Any]] = {}
        for row in messages.values():
            of.setdefault(row[2], []).append(row)
        path: list[str] = []
        here = active[0][0]
        while here is not None:
            if here not in messages:
                verdict.breach(f"chat {track.chat_id}: its branch leads to no message")
                break
            _, parent, _, role, _, content, _ = messages[here]
            if role == "user":
                path.insert(0, content.split()[0])
            here = parent
        order = {step.tag: place for place, step in enumerate(track.steps)}
        places = [order.get(tag, -1) for tag in path]
        if places != sorted(set(places)):
            verdict.breach(f"chat {track.chat_id}: out of order or doubled: {path}")
        for step in track.steps:
            memory = self._journal.of(step.tag)
            mine = of.get(memory.id or "", [])
            roles = Counter(row[3] for row in mine)
            if roles and roles != Counter(user=1, assistant=1):
                verdict.duplicated += 1
                verdict.breach(f"{step.tag}: {dict(roles)} messages")
            if memory.code == "success" and (step.tag not in path or not mine):
                verdict.lost += 1
                verdict.breach(f"{step.tag}: a success, and not in its chat: {path}")
            elif roles["assistant"] and memory.envelopes:
                (answer,) = (row for row in mine if row[3] == "assistant")
                self._answer(step.tag, str(step.data["user_input"]), memory, answer)

    def _answer(self, tag: str, prompt: str, memory: Memory, answer: Any) -> None:
        verdict = self.verdict
        status, content = answer[4], answer[5]
        response = memory.envelopes[0]["data"].get("llm_response")
        told = None if response is None else (response["status"], response["content"])
        if told != (status, content) and (told or memory.code != "deadline_exceeded"):
            verdict.breach(f"{tag}: the envelope says something else than the message")
        whole = answer_to(prompt)
        if status == "complete" and content != whole:
            verdict.breach(f"{tag}: complete, and {len(content)} of {len(whole)} characters")
        elif status != "complete" and not whole.startswith(content):
            verdict.breach(f"{tag}: {status}, and not what the provider has said")
        self._events(tag, memory, content)

    def _events(self, tag: str, memory: Memory, content: str) -> None:
        verdict = self.verdict
        number, text = 0, ""
        for first, last, events in self._place.sql(_EVENTS, memory.id):
            if first != number + 1 or last != number + len(events):
                verdict.breach(f"{tag}: its events have a gap or an overlap at {first}")
            number = last
            text += "".join(
                e["text"]
                for e in events
                if e["type"] == "response.delta" and e.get("kind", "text") == "text"
            )
        if text != content:
            verdict.breach(f"{tag}: its deltas are not the message")
        stream = memory.stream
        if stream is not None:
            if not stream["whole"] or stream["text"] != content:
                verdict.breach(f"{tag}: its follower has seen something else than is stored")
            if stream["last"] is None:
                verdict.breach(f"{tag}: its stream has no end")
