"""Nothing secret and nothing that a user wrote leaves the database, except to its provider."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from kombu import Connection
from kombu.exceptions import DecodeError

from llmchatlinker.celery_app import app
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import exchange
from tests.fixtures.brokers import Broker
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker, environment
from tests.servers import defective, free_ports, scripts
from tests.servers.provider import ScriptedProvider

TEXTS = {
    "the API key": "sk-canary-1111",
    "a header": "canary-header-2222",
    "a prompt": "canary prompt 3333",
    "an answer": "canary answer 4444",
    "a profile": "canary profile 5555",
    "a system prompt": "canary system 6666",
}


class Tap:
    """A queue that gets a copy of every message of the product's exchange, and of every event."""

    def __init__(self, url: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.default_channel
        exchange.bind(self._channel).declare()
        self._channel.queue_declare("tap", durable=True, auto_delete=False)
        self._channel.queue_bind("tap", exchange.name, "#")

    def hear_events(self) -> None:
        """Once there is a worker: its exchange is there, too."""
        self._channel.queue_bind("tap", "celeryev", "#")

    def heard(self) -> str:
        """All that has passed."""
        said = []
        while (message := self._channel.basic_get("tap", no_ack=True)) is not None:
            said.append(f"{message.headers} {message.properties} {message.body!r}")
        return "\n".join(said)

    def close(self) -> None:
        """Let go of it."""
        self._connection.release()


@pytest.fixture
def tap(broker: Broker) -> Iterator[Tap]:
    """On the test's own broker."""
    made = Tap(broker.url)
    yield made
    made.close()


@pytest.fixture
def flower(cycle: Cycle, tmp_path: Path) -> Iterator[tuple[str, ManagedProcess]]:
    """Flower with all that its API shows."""
    (port,) = free_ports(1)
    process = ManagedProcess(
        "flower",
        [sys.executable, "-m", "celery", "-A", "llmchatlinker", "flower", "--address=127.0.0.1",
         f"--port={port}", "--logging=DEBUG"],
        environment(get_settings()) | {"FLOWER_UNAUTHENTICATED_API": "true"},
        tmp_path / "flower.log",
        cwd=tmp_path,
    )  # fmt: skip
    process.start()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{url}/healthcheck", timeout=60).ok
        except requests.RequestException:
            return False

    try:
        wait_until(answers, 60, process)
        yield url, process
    finally:
        process.stop()


def test_no_canary_is_in_logs_messages_events_flower_or_reprs(
    cycle: Cycle,
    provider: ScriptedProvider,
    secret_keys: str,
    worker: StartWorker,
    tap: Tap,
    flower: tuple[str, ManagedProcess],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    process = worker(include=defective.MODULE, log_level="DEBUG")
    tap.hear_events()
    client = LLMChatLinkerClient()
    url, flower_process = flower

    ran = _everything(client, provider)
    eventually(lambda: len(requests.get(f"{url}/api/tasks", timeout=60).json()) >= 2 * len(ran))
    pages = [
        requests.get(url + path, timeout=60).text for path in ("/api/tasks", "/api/workers", "/")
    ]
    process.stop(30)

    settings = get_settings()
    canaries = TEXTS | {
        "the database's password": str(urlsplit(settings.database_url).password),
        "the broker's password": str(urlsplit(settings.broker_url).password),
        "the key of keys": secret_keys,
    }
    places = {
        "the worker's log": process.log_text(),
        "Flower's log": flower_process.log_text(),
        "Flower's pages": "".join(pages),
        "messages and events": tap.heard(),
        "the client's log": caplog.text,
        "reprs": "".join(map(repr, (settings, app, app.backend, client, cycle.database, app.pool))),
    }
    assert "llmchatlinker.llm.llm_response_generate" in places["messages and events"]
    assert "task-succeeded" in places["messages and events"]
    assert "failed with a defect" in places["the worker's log"]
    found = [
        (what, where)
        for what, text in canaries.items()
        for where in places
        if text in places[where]
    ]
    assert found == []
    kept = cycle.everything()
    assert not any(text in kept for text in ("sk-canary", "canary-header", secret_keys))


def _everything(client: LLMChatLinkerClient, provider: ScriptedProvider) -> list[str]:
    """Instructions that succeed and that fail, with every canary in them; their statuses."""
    profile, prompt = TEXTS["a profile"], TEXTS["a prompt"]
    llm = {"provider_name": "p", "llm_name": "echo"}
    provider.script(
        scripts.answer(TEXTS["an answer"]),
        scripts.error(500, f"{prompt} {TEXTS['the API key']}"),
        scripts.error(401, TEXTS["the API key"]),
        scripts.raw(prompt.encode()),
    )
    envelopes = [
        client.create_user("ada", profile=profile),
        client.create_user("ada", profile=profile),  # a conflict
        client.create_user("defect", profile=profile),
        client.create_user("defect outside", profile=profile),
        client.create_chat("c", usernames=["ada"], system_prompt=TEXTS["a system prompt"]),
        client.add_llm_provider(
            "p",
            provider.base_url,
            api_key=TEXTS["the API key"],
            settings={"headers": {"X-Tenant": TEXTS["a header"]}},
        ),
        client.run("LLM_ADD", **llm),
        *[
            client.run("LLM_RESPONSE_GENERATE", user_id=1, chat_id=1, user_input=prompt, **llm)
            for _ in range(4)
        ],
        client.run("CHAT_SEARCH", user_id=1, query=prompt),
        client.run("USER_CREATE", username="bob", profile=[prompt]),  # no text
        client.run("USER_UPDATE", user_id=1, profil=profile),  # no field
    ]
    statuses = [envelope["status"] for envelope in envelopes]
    assert statuses.count("success") == 6, envelopes
    return statuses


class Bomb:
    """What a pickle does when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_no_pickle_is_ever_loaded(cycle: Cycle, worker: StartWorker, tmp_path: Path) -> None:
    path = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(path))
    process = worker(sweep_interval=0.2)
    told = {"lang": "py", "task": "llmchatlinker.control.decode", "id": "1", "root_id": "1"}
    kinds = [
        "application/x-python-serialize",
        "application/x-yaml",
        "application/x-msgpack",
        "pickle",
    ]
    for content_type in [*kinds, "application/json", "application/data"]:
        for encoding in ("binary", "utf-8"):
            for queue in ("control", "database", "dead_letters"):
                cycle.broker.publish(
                    bomb, queue, content_type=content_type, content_encoding=encoding, headers=told
                )
    # Where clients and other workers listen: replies, remote control, events, and stored results.
    waiting = LLMChatLinkerClient().submit("USER_LIST")
    first = waiting.get(timeout=60)
    assert first["status"] == "success", first
    cycle.broker.publish(bomb, str(cycle.row(waiting.id).reply_to), content_type=kinds[0])
    cycle.broker.publish(bomb, "", "celery.pidbox", content_type=kinds[0])
    cycle.broker.publish(bomb, "task.sent", "celeryev", content_type=kinds[0])
    cycle.sql(
        "INSERT INTO task_results (task_id, status, result) VALUES ('bomb', 'SUCCESS', :text)",
        text=bomb.decode("latin-1").replace("\x00", ""),
    )

    with pytest.raises(DecodeError, match="is no JSON"):
        app.AsyncResult("bomb").get(timeout=60)
    assert LLMChatLinkerClient().list_users()["status"] == "success"
    eventually(lambda: cycle.broker.ready("dead_letters") == 0)
    eventually(lambda: cycle.count("dead_letters", "became = 'kept'") == 36)
    assert process.alive
    assert not path.exists()
