"""What PostgreSQL does for the hot path and for the sweeper: the product's functions, explained.

``auto_explain`` sends the plan of every statement, with times and pages, to the connection that asked.
Everything is rolled back or is harmless: nothing of what is looked at is changed for good, but for a
handful of instructions that run from their submission to their end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import event
from sqlalchemy.orm import Session

from llmchatlinker import load, orchestrator, retention, stages, sweeper
from llmchatlinker.db.driver import Transaction
from llmchatlinker.db.sessions import database
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_GET
from llmchatlinker.providers.base import ChatAnswer, Usage
from llmchatlinker.results.reading import read
from llmchatlinker.settings import PREFIX
from llmchatlinker.streaming.compaction import compact
from llmchatlinker.streaming.events import DELTA
from llmchatlinker.streaming.tail import Tail
from llmchatlinker.topology import QUEUE_NAMES
from llmchatlinker.units import straight_claim, straight_settle
from llmchatlinker.units.calling import Performed
from llmchatlinker.units.context import HISTORY_LENGTH
from llmchatlinker.units.due import release_due
from llmchatlinker.units.straight_claim import Claim
from llmchatlinker.units.straight_settle import settlement
from llmchatlinker.units.tree import told_up_to

ROOT = Path(__file__).resolve().parents[2]
#: Tables that grow with use, and are never to be read as a whole.
BIG = ("instructions", "events", "messages", "attempts", "records", "dead_letters", "task_results")
#: Ids that a waiting client looks for in one query.
WAITING = 100

_SETTINGS = (
    "LOAD 'auto_explain'",
    "SET auto_explain.log_min_duration = 0",
    "SET auto_explain.log_analyze = on",
    "SET auto_explain.log_buffers = on",
    "SET auto_explain.log_format = json",
    "SET auto_explain.log_level = notice",
    "SET client_min_messages = notice",
)


@dataclass(frozen=True)
class Plan:
    """The statements of one function together. ``whole``: tables that were read as a whole."""

    milliseconds: float
    pages: int
    whole: tuple[str, ...]
    statements: int


Plans = dict[str, Plan]


def look(url: str) -> Plans:
    """The plans of each function, in a process of its own: nothing else may use its database."""
    command = [sys.executable, "-m", "benchmarks.scenarios.plans"]
    environment = os.environ | {PREFIX + "DATABASE_URL": url, PREFIX + "CLIENT_PATIENCE": "600"}
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, capture_output=True)
    found = json.loads(done.stdout)
    return {name: Plan(p[0], p[1], tuple(p[2]), p[3]) for name, p in found.items()}


class _Notices(list[str]):
    """What PostgreSQL says. SQLAlchemy empties a connection's list after each statement."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def append(self, notice: str) -> None:
        self.kept.append(notice)


def main() -> None:
    """Print them as JSON."""
    notices = _Notices()

    @event.listens_for(database().engine, "connect")
    def explain(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            for setting in _SETTINGS:
                cursor.execute(setting)
        connection.commit()
        connection.notices = notices

    found = {}
    for name, work in _functions().items():
        notices.kept.clear()
        work()
        plan = _plan(notices.kept)
        found[name] = [plan.milliseconds, plan.pages, plan.whole, plan.statements]
    print(json.dumps(found))


def _functions() -> dict[str, Callable[[], object]]:
    """By the name of what is done. Those of a cycle need each other, so they stand in its order."""
    ids: list[UUID] = []

    def submit() -> None:
        values: dict[str, Any] = {
            "id": str(new_instruction_id()), "type": USER_GET.name, "data": '{"user_id": 1}',
            "turn": None, "user_ids": [1], "chat_id": None, "message_id": None, "key": None,
            "fingerprint": None, "reply_to": None, "traceparent": None, "follow": False,
            "deadline": 60.0,
        }  # fmt: skip
        database().statement(orchestrator._INSERT, values, prepare=True)
        ids.append(UUID(values["id"]))

    def rolled_back(work: Callable[[Session], object]) -> Callable[[], object]:
        def run() -> None:
            with Session(database().engine) as session:
                work(session)
                session.rollback()

        return run

    def turn() -> None:
        with suppress(_Undone):
            database().run_on_driver(_turn)

    ready = dict.fromkeys(QUEUE_NAMES, 0)
    found: dict[str, Callable[[], object]] = {
        "submit": submit,
        "decode": lambda: stages.decode(ids[0]),
        "execute": lambda: stages.execute(ids[0], USER_GET, "bench"),
        "store": lambda: stages.store(ids[0]),
        "a turn's claim and end": turn,
        f"a look for {WAITING} results": lambda: read([str(ids[0])] * WAITING),
        "count of what is open": load._look,
        "sweeper: deadlines": rolled_back(sweeper._late),
        "sweeper: turns": rolled_back(sweeper._overlooked_turns),
        "sweeper: left open": rolled_back(sweeper._left_open),
        "sweeper: waits": rolled_back(lambda session: release_due(session, slots=True)),
        "sweeper: compaction": rolled_back(compact),
        "sweeper: lost messages": rolled_back(lambda s: sweeper._take_lost(s, ready)),
    }
    for kind in retention.KINDS:
        found[f"purge: {kind.name}, nothing due"] = rolled_back(
            partial(retention.delete_batch, statement=kind.statement, keep=1e9)
        )
    return found


class _Undone(Exception):
    """Nothing of it is to stay."""


_SCENE = """
    WITH provider AS (
        INSERT INTO providers (name, api_endpoint, kind)
        VALUES (%(id)s, 'http://127.0.0.1/v1', 'openai') RETURNING id
    ), llm AS (
        INSERT INTO llms (provider_id, llm_name) SELECT id, 'echo' FROM provider RETURNING id
    ), chat AS (
        INSERT INTO chats (title) VALUES ('Plans') RETURNING id
    ), member AS (
        INSERT INTO chat_members (chat_id, user_id) SELECT id, 1 FROM chat
    )
    INSERT INTO instructions (id, type, data, state, turn, user_ids, chat_id, deadline_at)
    SELECT CAST(%(id)s AS uuid), 'LLM_RESPONSE_GENERATE',
           jsonb_build_object('user_id', 1, 'chat_id', chat.id, 'llm_id', llm.id, 'user_input', 'Hi'),
           'decoded', 'queued', '{1}', chat.id, now() + interval '1 minute'
      FROM chat, llm
"""


def _turn(rows: Transaction) -> None:
    """A turn that is claimed and answered, and its history; nothing of it stays."""
    instruction_id = new_instruction_id()
    rows({"id": str(instruction_id)}, _SCENE)
    (claimed,) = straight_claim.claim(rows, [Claim(instruction_id, "bench")])
    assert isinstance(claimed, tuple)
    usage = Usage(1, 1, 2)
    tail = Tail(2, [{"type": DELTA, "kind": "text", "text": "Hi"}], stored_deltas=False)
    done = Performed(ChatAnswer("Hi", "stop", usage=usage), None, usage, tail)
    settled = settlement(claimed[0], done, "Done.")
    assert settled is not None
    (ended,) = straight_settle.settle(rows, [settled])
    assert ended is not None
    chat = "SELECT active_message_id FROM chats WHERE title = 'Plans' ORDER BY id DESC LIMIT 1"
    assert told_up_to(rows, [rows({}, chat)[0][0]], HISTORY_LENGTH)
    raise _Undone


def _plan(notices: list[str]) -> Plan:
    milliseconds, pages, whole, statements = 0.0, 0, set(), 0
    for notice in notices:
        _, brace, rest = notice.partition("{")
        if not brace:
            continue
        root = json.loads(brace + rest)["Plan"]
        statements += 1
        milliseconds += root.get("Actual Total Time", 0.0)
        pages += root.get("Shared Hit Blocks", 0) + root.get("Shared Read Blocks", 0)
        whole |= _whole(root)
    return Plan(round(milliseconds, 3), pages, tuple(sorted(whole)), statements)


def _whole(node: dict[str, Any]) -> set[str]:
    found = {w for child in node.get("Plans", ()) for w in _whole(child)}
    if (
        node["Node Type"] == "Seq Scan"
        and node.get("Actual Loops")
        and node["Relation Name"] in BIG
    ):
        found.add(node["Relation Name"])
    return found


if __name__ == "__main__":
    main()
