"""A rolling upgrade: while the schema changes, workers and clients of the previous release go on.

The previous release is the newest tag ``v*``; until there is one, the newest commit. It makes its own
schema in an empty database, and its worker starts there. While that works, what this tree has in
migrations beyond is applied, and one more with everything that a migration may do.
"""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db import migrate as migrations
from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import Database, use_database
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import Broker
from tests.fixtures.configuration import Configure
from tests.fixtures.made_up_migrations import BUSY, write
from tests.fixtures.releases import previous_release
from tests.fixtures.servers import PostgresServer
from tests.fixtures.threads import eventually
from tests.fixtures.workers import START_SECONDS, environment
from tests.servers.provider import ScriptedProvider

#: What a client of either release does, over and over; it needs nothing but the instruction set.
CLIENT = """
import json, sys
from llmchatlinker.client import LLMChatLinkerClient

client, llm_id = LLMChatLinkerClient(), int(sys.argv[1])
for line in sys.stdin:
    said = [client.create_user(username=line.strip())]
    user_id = said[0]["data"]["user"]["user_id"]
    said.append(client.create_chat(title="t", user_ids=[user_id]))
    chat_id = said[1]["data"]["chat"]["chat_id"]
    turn = {"user_id": user_id, "chat_id": chat_id, "llm_id": llm_id, "user_input": "Hello"}
    said += [client.run("LLM_RESPONSE_GENERATE", **turn), client.get_chat(chat_id=chat_id)]
    said += [client.get_user(username=line.strip()), client.list_users()]
    print(json.dumps([one["status"] for one in said]), flush=True)
"""


class Release:
    """The files of a release, run as processes of their own."""

    def __init__(self, root: Path, folder: Path, running: ExitStack) -> None:
        self._root, self._folder, self._running = root, folder, running

    def migrate(self) -> None:
        """Bring the database to this release's schema."""
        subprocess.run(
            [sys.executable, "-m", "llmchatlinker", "migrate"],
            env=environment(get_settings()) | {"PYTHONPATH": str(self._root)},
            cwd=self._root,
            check=True,
            timeout=START_SECONDS,
        )

    def worker(self, name: str) -> ManagedProcess:
        """A worker for all queues, ready."""
        heartbeat = self._folder / f"{name}.heartbeat"
        changes = {"heartbeat_file": heartbeat, "concurrency": 4}
        process = ManagedProcess(
            name,
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "llmchatlinker",
                "worker",
                "-n",
                f"{name}@localhost",
            ],
            environment(get_settings(), **changes) | {"PYTHONPATH": str(self._root)},
            self._folder / f"{name}.log",
            cwd=self._root,
            stop_signals=(signal.SIGTERM, signal.SIGQUIT),
        )
        process.start()
        self._running.callback(process.stop, 15.0)
        wait_until(heartbeat.exists, START_SECONDS, process)
        return process

    def client(self, name: str, llm_id: int) -> Busy:
        """A client that goes on until it is stopped."""
        process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(llm_id)],
            env=environment(get_settings()) | {"PYTHONPATH": str(self._root)},
            cwd=self._root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        busy = Busy(name, process)
        self._running.callback(busy.stop)
        return busy


class Busy:
    """A client at work."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.statuses: list[str] = []
        self._name, self._process = name, process
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for number in range(100_000):
            if self._stop.is_set():
                break
            self._process.stdin.write(f"{self._name} {number}\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            if not line:
                self.statuses.append("the client died")
                break
            self.statuses += json.loads(line)

    def goes_on(self) -> None:
        """Return once two more rounds are through."""
        enough = len(self.statuses) + 12
        eventually(lambda: len(self.statuses) >= enough or "the client died" in self.statuses)

    def stop(self) -> None:
        """Let it end its round."""
        self._stop.set()
        self._thread.join(60)
        self._process.communicate(timeout=60)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """Ends what was started, the newest first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def empty(postgres_server: PostgresServer, configure: Configure) -> Iterator[Database]:
    """The process's database, without a table."""
    name = f"llmchatlinker_test_{secrets.token_hex(6)}"
    current = Database(configure(database_url=postgres_server.create(name)))
    use_database(current)
    yield current
    use_database(None)
    current.dispose()
    postgres_server.drop(name)


def test_an_upgrade_and_the_way_back_fail_no_instruction(
    empty: Database,
    broker: Broker,
    provider: ScriptedProvider,
    running: ExitStack,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    previous_release(tmp_path / "previous")
    old = Release(tmp_path / "previous", tmp_path, running)
    new = Release(migrations.SCRIPTS.parents[2], tmp_path, running)
    old.migrate()
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, write(tmp_path / "next")])
    monkeypatch.setattr(migrations, "PAUSE", 0.2)

    old_worker = old.worker("old")
    here = LLMChatLinkerClient()
    here.add_llm_provider("p", provider.base_url)
    llm: dict[str, Any] = here.run("LLM_ADD", provider_name="p", llm_name="echo")
    llm_id = llm["data"]["llm"]["llm_id"]
    clients = [old.client("old", llm_id)]
    clients[0].goes_on()

    waiting = migrations.pending(empty)
    assert waiting[-1] == BUSY
    assert migrate(empty) == waiting  # expanded, while they are at it
    clients.append(new.client("new", llm_id))  # code goes after its schema
    for client in clients:
        client.goes_on()
    new_worker = new.worker("new")  # both at once
    for client in clients:
        client.goes_on()
    old_worker.stop(30)  # upgraded
    for client in clients:
        client.goes_on()
    old.worker("old-again")  # and the way back: an older version, started on the newer schema
    new_worker.stop(30)
    for client in clients:
        client.goes_on()
        client.stop()

    for client in clients:
        assert set(client.statuses) == {"success"}
    with empty.engine.connect() as connection:
        ((open_rows,),) = connection.exec_driver_sql(
            "SELECT count(*) FROM instructions WHERE final_at IS NULL"
        )
    assert open_rows == 0


def test_a_worker_on_an_older_schema_says_what_to_do(
    database: Database, broker: Broker, tmp_path: Path
) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")

    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "llmchatlinker", "worker", "-Q", "user"],
        env=environment(get_settings()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert "Run `llmchatlinker migrate`" in done.stderr
    assert "Traceback" not in done.stderr
