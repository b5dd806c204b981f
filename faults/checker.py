"""What must hold when a round is over, whatever was broken in it.

Four memories are compared: the clients' (``journal.py``), PostgreSQL's, RabbitMQ's and the provider's.
Nothing here judges by time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.servers import Place
from faults.journal import Journal, Memory
from faults.plan import PROBE, Plan, Step, Track
from faults.provider import CountingProvider, answer_to

GENERATE = "LLM_RESPONSE_GENERATE"
#: Codes, beside those of a scenario, that are right only where the step asks for it: its prompt says
#: how the provider fails, or its client cancels it.
PROVIDERS_FAULT = ("provider_error", "provider_timeout")

_ROWS = """
    SELECT CAST(id AS text),
           coalesce(data ->> 'title', data ->> 'user_input', data ->> 'username'), state, outcome,
           data ->> 'instruction_id'
      FROM instructions WHERE seq > %s AND seq <= %s
"""
_LINES = """
    SELECT CAST(instruction_id AS text), status, first_delta_at IS NOT NULL FROM attempts
     WHERE instruction_id IN (SELECT id FROM instructions WHERE seq > %s)
"""
#: Lines of calls that may have ended before they were made, unless a piece of the answer was stored: the
#: worker died behind its claim, or the call was broken off there.
_PERHAPS = ("in_doubt", "cancelled")
#: What creates something, and how often that is there.
_MADE = {
    "CHAT_CREATE": "SELECT title, count(*) FROM chats WHERE title = ANY(%s) GROUP BY 1",
    "USER_CREATE": "SELECT username, count(*) FROM users WHERE username = ANY(%s) GROUP BY 1",
}
_MESSAGES = """
    SELECT chat_id, id, parent_id, CAST(instruction_id AS text), role, status, content
      FROM messages WHERE chat_id = ANY(%s) ORDER BY id
"""
_ACTIVE = "SELECT id, active_message_id FROM chats WHERE id = ANY(%s)"
_EVENTS = """
    SELECT CAST(instruction_id AS text), first, last, events FROM events
     WHERE instruction_id IN (SELECT id FROM instructions WHERE seq > %s) ORDER BY 1, first
"""


@dataclass
class Verdict:
    """A round's figures, and every broken promise as a sentence.

    ``uncalled``: lines of the ledger whose call was never made.
    """

    accepted: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    unledgered: int = 0
    in_doubt: int = 0
    uncalled: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def breach(self, sentence: str) -> None:
        """A promise that is broken."""
        self.breaches.append(sentence)


class Check:
    """The comparison of one round. ``after``, ``until``: the last seq before it, and of it; ``allowed``:
    codes that may be; ``called``: how often each tag had been asked for before.
    """

    def __init__(
        self,
        place: Place,
        provider: CountingProvider,
        plan: Plan,
        journal: Journal,
        after: int,
        until: int,
        allowed: Iterable[str],
        called: Mapping[str, int],
    ) -> None:
        self.verdict = Verdict(breaches=list(journal.defects))
        self._place = place
        self._calls = provider.calls_of
        self._plan = plan
        self._journal = journal
        self._allowed = {"success", *allowed}
        self._called = called
        self._rows: dict[str, tuple[str, str, Any]] = {}
        self._of_tag: dict[str, list[str]] = {}
        self._about: dict[str, str] = {}
        for known, text, state, outcome, about in place.sql(_ROWS, after, until):
            self._rows[known] = (text, state, outcome)
            if about:
                self._about[known] = about
            if text:
                self._of_tag.setdefault(text.split()[0], []).append(known)
        self._lines: dict[str, list[tuple[str, bool]]] = {}
        for known, status, has_said in place.sql(_LINES, after):
            self._lines.setdefault(known, []).append((status, has_said))
        self._events: dict[str, list[tuple[int, int, Any]]] = {}
        for known, *event in place.sql(_EVENTS, after):
            self._events.setdefault(known, []).append((event[0], event[1], event[2]))
        chats = [track.chat_id for track in plan.tracks if track.chat_id is not None]
        self._active = dict(place.sql(_ACTIVE, chats))
        self._messages: dict[int, dict[int, tuple[Any, ...]]] = {chat: {} for chat in chats}
        for chat, *message in place.sql(_MESSAGES, chats):
            self._messages[chat][message[0]] = tuple(message)

    def run(self) -> Verdict:
        """All of it."""
        self._envelopes()
        self._owners()
        self._effects()
        self._ledger()
        for track in self._plan.tracks:
            if track.chat_id is not None:
                self._chat(track, track.chat_id)
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
            if memory.uncertain and not memory.envelopes and self._withdrawn(memory):
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
        if memory.envelopes[0].get("instruction_id") != memory.id:
            verdict.breach(f"{tag}: {memory.id} has the envelope of another id")
        if memory.code not in self._allowed or not self._asked_for(tag, memory.code):
            said = memory.envelopes[0].get("message")
            verdict.breach(f"{tag}: {memory.id} ended with {memory.code}: {said}")

    def _asked_for(self, tag: str, code: str | None) -> bool:
        (step,) = (step for step in self._plan.steps if step.tag == tag)
        if code in PROVIDERS_FAULT:
            return "manner=" in str(step.data.get("user_input"))
        return code != "cancelled" or step.cancel is not None

    def _owners(self) -> None:
        """Whatever its type: no row that nobody submitted, and none that two did."""
        known = Counter(self._journal.of(step.tag).id for step in self._plan.steps)
        tagged = {each for step in self._plan.steps for each in self._of_tag.get(step.tag, [])}
        cancelled = {
            self._journal.of(step.tag).id for step in self._plan.steps if step.cancel is not None
        }
        for row_id, row in self._rows.items():
            if self._about.get(row_id) in cancelled:
                continue  # the cancel, which is an instruction itself
            if known[row_id] != 1 and row[1] != "withdrawn" and row_id not in tagged:
                self.verdict.duplicated += 1
                self.verdict.breach(f"{row_id}: {known[row_id]} submissions have it")
        for each, count in known.items():
            if each is not None and count > 1:
                self.verdict.breach(f"{each}: {count} submissions got it")

    # --- effects, once ----------------------------------------------------------------------------

    def _effects(self) -> None:
        for type_name, query in _MADE.items():
            tags = [step.tag for step in self._plan.steps if step.type == type_name]
            made = dict(self._place.sql(query, tags)) if tags else {}
            for tag in tags:
                self._effect(tag, made.get(tag, 0), self._journal.of(tag).code == "success")

    def _effect(self, tag: str, count: int, wanted: bool) -> None:
        if count > 1 or (count and not wanted):
            self.verdict.duplicated += 1
            self.verdict.breach(f"{tag}: {count} are there, its client has {wanted=}")
        elif wanted and not count:
            self.verdict.lost += 1
            self.verdict.breach(f"{tag}: nothing is there, though its client was told so")

    # --- calls and lines --------------------------------------------------------------------------

    def _ledger(self) -> None:
        verdict = self.verdict
        ours = {step.tag for step in self._plan.steps} | {PROBE}
        for tag, calls in list(self._calls.items()):
            if tag not in ours and calls > self._called.get(tag, 0):
                verdict.unledgered += calls - self._called.get(tag, 0)
                verdict.breach(f"{tag}: called in a round that is not its own")
        for step in self._plan.steps:
            if step.type != GENERATE:
                continue
            lines = [
                line
                for known in self._of_tag.get(step.tag, [])
                for line in self._lines.get(known, [])
            ]
            calls = self._calls[step.tag]
            perhaps = sum(status in _PERHAPS and not has_said for status, has_said in lines)
            in_doubt = sum(status == "in_doubt" for status, _ in lines)
            verdict.in_doubt += in_doubt
            if in_doubt and "in_doubt" not in self._allowed:
                verdict.breach(f"{step.tag}: in doubt, and no worker died: lines {lines}")
            verdict.uncalled += max(0, len(lines) - calls)
            if calls > len(lines):
                verdict.unledgered += calls - len(lines)
                verdict.breach(f"{step.tag}: {calls} calls, lines {lines}")
            elif calls < len(lines) - perhaps:
                verdict.breach(f"{step.tag}: only {calls} calls, lines {lines}")

    # --- what was said ----------------------------------------------------------------------------

    def _chat(self, track: Track, chat_id: int) -> None:
        verdict = self.verdict
        messages = self._messages[chat_id]
        of: dict[str, list[Any]] = {}
        for row in messages.values():
            of.setdefault(row[2], []).append(row)
        path: list[str] = []
        here = self._active[chat_id]
        while here is not None:
            if here not in messages:
                verdict.breach(f"chat {chat_id}: its branch leads to no message")
                break
            _, parent, _, role, _, content = messages[here]
            if role == "user":
                path.insert(0, content.split()[0])
            here = parent
        owners = {self._journal.of(step.tag).id for step in track.steps}
        for nobody in of.keys() - owners:
            verdict.duplicated += 1
            verdict.breach(f"chat {chat_id}: messages of {nobody}, which nobody submitted")
        order = {step.tag: place for place, step in enumerate(track.steps)}
        places = [order.get(tag, -1) for tag in path]
        if places != sorted(set(places)):
            verdict.breach(f"chat {chat_id}: out of order or doubled: {path}")
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
            elif roles["assistant"] == 1 and memory.envelopes:
                (answer,) = (row for row in mine if row[3] == "assistant")
                self._followed(step, memory)
                self._answer(step.tag, str(step.data["user_input"]), memory, answer)

    def _followed(self, step: Step, memory: Memory) -> None:
        # Whose submission raised an error has nothing to follow.
        if step.stream and memory.stream is None and not memory.uncertain:
            self.verdict.breach(f"{step.tag}: its follower has seen nothing")

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
        self._stream(tag, memory, content)

    def _stream(self, tag: str, memory: Memory, content: str) -> None:
        verdict = self.verdict
        number, text = 0, ""
        for first, last, events in self._events.get(memory.id or "", []):
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
