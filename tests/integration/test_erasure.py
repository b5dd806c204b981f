"""A user with a text in every field there is: all of it is exported, and none of it is left.

What is left is looked for in a dump of the whole database, as a backup would have it.
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from kombu import Connection
from sqlalchemy import text

from llmchatlinker.cli.database_facts import erased_so_far
from llmchatlinker.dead_letters.collecting import collect
from llmchatlinker.embedded import binaries
from llmchatlinker.retention import purge
from llmchatlinker.units import erasing
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once, eventually
from tests.servers import scripts

#: The beginning of every text of the user's, and of nothing else.
MARK = "xyzzy"
PICTURE = base64.b64encode(b"xyzzy is in this picture").decode()
NAME, OLD_NAME = f"{MARK}-name", f"{MARK}-oldname"
TOOL = {"type": "function", "function": {"name": f"{MARK}-tool", "parameters": {}}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": f'"{MARK}-argument"'}}
#: What an export has to have; answers, tools' calls and reasoning included.
TEXTS = [
    NAME, f"{MARK}-profile", f"{MARK}-display", f"{MARK}-title", f"{MARK}-system",
    f"{MARK}-prompt", f"{MARK}-answer", f"{MARK}-reasoning", f"{MARK}-argument", f"{MARK}-shared",
    PICTURE, f"{MARK}-tool", f"{MARK}-stop", f"{MARK}-key", f"{MARK}-refused", f"{MARK}-quoted",
    f"{MARK}-parked",
]  # fmt: skip


class Eve:
    """Who is erased, in a chat of her own and in one with Bob."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.cycle = scene.cycle
        self.bob = scene.user_id
        user = self.cycle.do(
            "USER_CREATE",
            username=OLD_NAME,
            profile=f"{MARK}-profile",
            display_name=f"{MARK}-display",
        )
        self.id: int = user["user"]["user_id"]
        self.cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=self.id)
        self.cycle.do("USER_UPDATE", user_id=self.id, username=NAME)
        own = self.cycle.do(
            "CHAT_CREATE", title=f"{MARK}-title", usernames=[NAME], system_prompt=f"{MARK}-system"
        )
        self.own: int = own["chat"]["chat_id"]
        self.shared: int = scene.chat_id
        self.cycle.do("CHAT_UPDATE", chat_id=self.shared, add_users=[NAME])

    def data(self, chat_id: int, said: Any = f"{MARK}-prompt", **more: Any) -> dict[str, Any]:
        """The data of a turn of hers."""
        llm_id = self.scene.llm_id
        return {"user_id": self.id, "chat_id": chat_id, "llm_id": llm_id, "user_input": said} | more

    def leave_traces(self) -> UUID:
        """Write into everything that keeps something; returns a turn that waits."""
        cycle, provider = self.cycle, self.scene.provider
        answered = scripts.answer(
            f"{MARK}-answer", reasoning_content=f"{MARK}-reasoning", tool_calls=[CALL]
        )
        quoting = scripts.error(400, f"{MARK}-quoted is not what I answer")
        provider.script(answered, quoting)
        url = f"data:image/png;base64,{PICTURE}"
        parts = [
            {"type": "text", "text": f"{MARK}-prompt"},
            {"type": "image_url", "image_url": {"url": url}},
        ]
        parameters = {"stop": [f"{MARK}-stop"], "tools": [TOOL]}
        key = cycle.submit(
            "LLM_RESPONSE_GENERATE",
            idempotency_key=f"{MARK}-key",
            **self.data(self.own, parts, parameters=parameters),
        )
        assert cycle.finish(key)
        cycle.fail("LLM_RESPONSE_GENERATE", **self.data(self.own, f"{MARK}-prompt 2"))
        shared = cycle.do("LLM_RESPONSE_GENERATE", **self.data(self.shared, f"{MARK}-shared"))
        message_id = shared["llm_response"]["message_id"]
        cycle.do("LLM_RESPONSE_REGENERATE", message_id=message_id, user_id=self.bob)
        cycle.do("LLM_RESPONSE_GENERATE", **(self.scene.turn | {"user_input": "bob's question"}))
        cycle.fail("USER_UPDATE", user_id=self.id, colour=f"{MARK}-refused")
        cycle.fail("USER_GET", username=OLD_NAME)
        cycle.fail("CHAT_CREATE", title="Ghosts", usernames=[OLD_NAME, "ada"])
        cycle.fail("USER_CREATE", username=NAME, profile="taken")
        for name, data in (
            ("CHAT_LOAD", {"chat_id": self.own, "branch": "all"}),
            ("CHAT_LOAD", {"chat_id": self.shared, "branch": "all"}),
            ("CHAT_EXPORT", {"chat_id": self.shared}),
            ("CHAT_UPDATE", {"chat_id": self.own, "title": f"{MARK}-title"}),
            ("CHAT_SEARCH", {"user_id": self.bob, "query": "shared"}),
            ("CHAT_LIST", {}),
            ("CHAT_LIST_BY_USER", {"user_id": self.bob}),
            ("USER_LIST", {}),
            ("USER_EXPORT", {"user_id": self.bob}),
            ("USAGE_LIST", {}),
        ):
            cycle.do(name, **data)
        cycle.broker.declare()
        cycle.broker.publish(f'"{MARK}"'.encode(), "dead_letters", headers={MARK: MARK})
        eventually(lambda: collect()["kept"] == 1)
        data = self.data(self.shared, f"{MARK}-parked")
        cycle.decoded("LLM_RESPONSE_GENERATE", **(self.scene.turn | {"user_input": "bob's second"}))
        parked = cycle.decoded("LLM_RESPONSE_GENERATE", **data)
        assert not cycle.execute(parked)
        return parked

    def export(self) -> list[dict[str, Any]]:
        """All pages."""
        pages, after = [], 0
        while True:
            pages.append(self.cycle.do("USER_EXPORT", user_id=self.id, after=after))
            if pages[-1]["next"] is None:
                return pages
            after = pages[-1]["next"]

    def erase(self) -> dict[str, int]:
        """Erase her; the counts."""
        counts: dict[str, int] = self.cycle.do("USER_ERASE", user_id=self.id)["erased"]
        return counts

    def left(self) -> list[str]:
        """The lines of a dump that have something of hers, as text or as bytes."""
        url = self.cycle.database.engine.url.set(drivername="postgresql")
        command = [str(binaries.installed() / "bin" / "pg_dump"), "--dbname"]
        command.append(url.render_as_string(hide_password=False))
        dump = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "COPY public.instructions" in dump
        assert "bob's question" in dump
        marks = (MARK, MARK.encode().hex(), PICTURE)
        return [line for line in dump.splitlines() if any(mark in line.lower() for mark in marks)]


@pytest.fixture
def eve(scene: Scene) -> Eve:
    """A user all of whose texts are marked."""
    return Eve(scene)


def go_on(cycle: Cycle) -> None:
    """What was open goes its way, and may not bring anything back."""
    for (instruction_id,) in cycle.sql("SELECT id FROM instructions WHERE final_at IS NULL"):
        cycle.finish(instruction_id)
    cycle.deliver()


@pytest.mark.filterwarnings("ignore:The ``noload``")  # of kombu's transport
@pytest.mark.parametrize("deleted", [False, True], ids=["a user", "a deleted user"])
def test_all_is_exported_and_none_of_it_is_left(eve: Eve, deleted: bool) -> None:
    cycle = eve.cycle
    eve.leave_traces()
    # What the embedded broker would keep of a message of hers.
    with Connection("sqla+" + cycle.database.engine.url.render_as_string(False)) as embedded:
        for letter in cycle.broker.take_all("control"):
            embedded.SimpleQueue("control").put(json.loads(letter.body), headers=letter.headers)

    said = json.dumps(eve.export())
    assert [one for one in TEXTS if one not in said] == []
    assert "bob's" not in said
    if deleted:
        cycle.do("USER_DELETE", user_id=eve.id)
    assert len(eve.left()) > 15

    counts = eve.erase()
    go_on(cycle)

    assert eve.left() == []
    assert counts["instructions"] > 15
    assert counts["messages"] >= 3
    assert cycle.fail("USER_ERASE", user_id=eve.id).code == "not_found"
    assert cycle.fail("USER_EXPORT", user_id=eve.id).code == "not_found"
    # What others wrote is as it was, and so are their results.
    loaded = cycle.do("CHAT_LOAD", chat_id=eve.shared)["chat"]["messages"]
    kept = [m["content"] for m in loaded if not m.get("erased")]
    assert kept == [
        "bob's question",
        "You said: bob's question",
        "bob's second",
        "You said: bob's second",
    ]
    assert {m["content"] for m in loaded if m.get("erased")} == {""}
    listed = cycle.sql("SELECT outcome FROM instructions WHERE type = 'USER_LIST'")
    users = {user["user_id"]: user for user in listed[0][0]["data"]["users"]}
    assert users[eve.bob]["username"] == "ada"
    assert set(users[eve.id]) <= {"user_id", "erased", "instruction_recording", "profile",
                                  "display_name", "created_at", "updated_at"}  # fmt: skip
    asked = cycle.sql(
        "SELECT count(*) FROM instructions WHERE data ->> 'user_input' = 'bob''s question'"
        " AND outcome #>> '{data,llm_response,content}' LIKE '%bob''s question%'"
    )
    assert asked[0][0] == 1


def test_a_call_that_goes_on_brings_nothing_back(eve: Eve) -> None:
    cycle, said = eve.cycle, threading.Event()
    eve.scene.provider.script(scripts.slow(200, per_second=20))
    turn = cycle.decoded("LLM_RESPONSE_GENERATE", **eve.data(eve.shared))
    thread = threading.Thread(target=lambda: (cycle.execute(turn), said.set()))
    thread.start()
    eventually(lambda: cycle.count("events") > 1)

    eve.erase()
    thread.join(60)
    go_on(cycle)

    assert said.is_set()
    assert [line for line in cycle.everything().split("\n") if MARK in line] == []
    assert cycle.count("events") == 0
    assert cycle.count("messages", "status = 'generating' OR content <> ''") == 0


class Died(BaseException):
    """The process is no more."""


def test_a_process_that_dies_at_it_loses_a_batch(eve: Eve, monkeypatch: pytest.MonkeyPatch) -> None:
    eve.leave_traces()
    monkeypatch.setattr(erasing, "BATCH", 1)
    monkeypatch.setattr(erasing, "LOOKED_AT", 3)
    do, batches = erasing._Eraser._do, 0

    def until_death(self: Any, batch: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches % 5 == 0:
            raise Died
        return do(self, batch)

    instruction_id = eve.cycle.submit("USER_ERASE", user_id=eve.id)
    eve.cycle.decode(instruction_id)
    with monkeypatch.context() as dying:
        dying.setattr(erasing._Eraser, "_do", until_death)
        deaths = 0
        while deaths < 5:
            with pytest.raises(Died):
                eve.cycle.execute(instruction_id)
            deaths += 1
    eve.cycle.execute(instruction_id)
    eve.cycle.store(instruction_id)
    go_on(eve.cycle)

    envelope = eve.cycle.envelope(instruction_id)
    assert envelope["status"] == "success"
    assert envelope["data"]["erased"]["messages"] >= 3
    assert eve.left() == []


def test_two_erasures_at_once_share_the_work(eve: Eve, monkeypatch: pytest.MonkeyPatch) -> None:
    eve.leave_traces()
    monkeypatch.setattr(erasing, "BATCH", 1)
    orders = [eve.cycle.decoded("USER_ERASE", user_id=eve.id) for _ in range(2)]

    at_once([partial(eve.cycle.execute, order) for order in orders])
    go_on(eve.cycle)

    assert [eve.cycle.row(order).state for order in orders] == ["final", "final"]
    assert eve.left() == []


def test_a_name_is_kept_as_long_as_instructions_are(eve: Eve, configure: Configure) -> None:
    cycle = eve.cycle
    cycle.do("USER_DELETE", user_id=eve.id)
    assert cycle.count("former_users", "usernames IS NOT NULL") == 1
    cycle.sql("UPDATE former_users SET left_at = left_at - interval '8 days'")

    assert purge()["names of deleted users"] == 1

    assert cycle.count("former_users", "usernames IS NULL") == 1
    assert cycle.database.run(lambda s: s.scalar(text("SELECT count(*) FROM users"))) == 1


def test_how_far_an_erasure_has_come_can_be_seen(cycle: Cycle) -> None:
    assert erased_so_far(7) == 0

    cycle.sql(
        'INSERT INTO former_users (user_id, erased) VALUES (7, \'{"messages": 40, "events": 2}\')'
    )

    assert erased_so_far(7) == 42
