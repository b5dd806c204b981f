"""What an outage leaves in a log: two lines, and no traceback."""

from __future__ import annotations

import threading

import pytest

from llmchatlinker import outages
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db import sessions
from llmchatlinker.db.sessions import Database
from llmchatlinker.errors import Unavailable
from tests.fixtures.brokers import Broker
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts
from tests.servers.proxy import Proxy

OUTAGE = 15.0


def test_an_outage_of_the_broker_is_two_lines_in_a_workers_log(
    scene: Scene, broker: Broker, worker: StartWorker
) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate, gate, gate)
    client = LLMChatLinkerClient()
    chats = [scene.chat_id] + [
        scene.cycle.do("CHAT_CREATE", title="More", user_ids=[scene.user_id])["chat"]["chat_id"]
        for _ in range(2)
    ]
    with Proxy(broker.url) as proxy:
        process = worker(broker_url=proxy.url, sweep_interval=1.0)
        results = [
            client.submit(
                "LLM_RESPONSE_GENERATE", **scene.turn | {"chat_id": chat_id}, user_input="Hello"
            )
            for chat_id in chats
        ]
        scene.provider.wait_for_calls(3)
        before = len(process.log_text().splitlines())

        proxy.cut()
        gate.open()  # what ends meanwhile can't be acknowledged
        threading.Event().wait(OUTAGE)
        proxy.mend()

        assert {result.get(timeout=120)["status"] for result in results} == {"success"}
        eventually(lambda: "answers again" in process.log_text())
        said = [
            line
            for line in process.log_text().splitlines()[before:]
            if "INFO" not in line and "stage=" not in line
        ]
    assert len(said) == 2, "\n".join(said)
    assert "does not answer, waiting for it" in said[0]
    assert "answers again" in said[1]


def test_a_disk_that_is_full_and_reads_that_succeed_are_one_outage(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    full = "DO $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"

    for _ in range(5):
        with pytest.raises(Unavailable):
            database.statement(full, {}, patience=0)
        database.statement("SELECT 1", {}, patience=0)

    said = [r.getMessage() for r in caplog.records if r.name == sessions.__name__]
    assert len(said) == 1
    assert "No space left on device" in said[0]


def test_an_outage_of_the_database_ends_with_a_line_when_it_has_been_quiet(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outages, "QUIET", 0.2)
    full = "DO $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
    with pytest.raises(Unavailable):
        database.statement(full, {}, patience=0)

    eventually(
        lambda: (
            database.statement("SELECT 1", {}, patience=0) == [(1,)]
            and "answers again" in caplog.text
        )
    )
