"""PostgreSQL dies with what it has not written yet: what is forgotten is done again, and nothing else.

The server's WAL writer is stopped, so that only what a commit has waited for is on the disk.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from uuid import UUID

import pytest

from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import Database, use_database
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.sweeper import sweep
from tests.fixtures.brokers import Broker
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.servers import private_postgres
from tests.fixtures.threads import eventually

WRITES_LATE = {
    "synchronous_commit": "on",
    "wal_writer_delay": "10s",
    "bgwriter_lru_maxpages": "0",  # who writes a page writes the log before it
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A server that may die."""
    with private_postgres(**WRITES_LATE) as postgres:
        yield postgres


class Crash:
    """Ends the server at once, and starts it again."""

    def __init__(self, server: EmbeddedPostgres, broker: Broker, configure: Configure) -> None:
        self._server, self._configure = server, configure
        self.cycle = Cycle(self._connect(), broker)
        migrate(self.cycle.database)
        of_writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        self._writer: int = self.cycle.sql(of_writer)[0][0]
        os.kill(self._writer, signal.SIGSTOP)

    def __call__(self) -> None:
        """What has been written so far is kept."""
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGKILL)
        os.kill(self._writer, signal.SIGKILL)  # the others see that it is gone
        eventually(lambda: self._server.pid is None)
        self._server.stop()
        self._server.start()
        self.cycle.database = self._connect()

    def _connect(self) -> Database:
        self._server.ensure_database("crashes")
        url = self._server.url("crashes")
        current = Database(self._configure(database_url=url, sweep_grace=0.001))
        use_database(current)
        return current


@pytest.fixture
def crash(server: EmbeddedPostgres, broker: Broker, configure: Configure) -> Iterator[Crash]:
    """What has been committed until it is called is kept if the commit waited for the disk."""
    yield Crash(server, broker, configure)
    use_database(None)
    server.drop_database("crashes")


@pytest.fixture
def cycle(crash: Crash) -> Cycle:
    """Instructions on a database of that server."""
    return crash.cycle


def swept_and_finished(cycle: Cycle, instruction_id: UUID) -> None:
    """Sweep; the worker runs what that published."""
    cycle.broker.take_all("control")
    cycle.broker.take_all("database")
    eventually(lambda: sweep()["republished"] == 1)
    cycle.deliver("control", "user", "database")


def test_a_forgotten_decode_is_repeated(cycle: Cycle, crash: Crash) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    assert cycle.decode(instruction_id)
    assert cycle.row(instruction_id).state == "decoded"

    crash()

    assert cycle.row(instruction_id).state == "submitted"
    swept_and_finished(cycle, instruction_id)
    assert cycle.row(instruction_id).state == "final"
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_work_that_was_done_is_not_forgotten_and_its_result_is_stored_again(
    cycle: Cycle, crash: Crash
) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    assert cycle.finish(instruction_id)
    told = cycle.envelope(instruction_id)

    crash()

    assert cycle.row(instruction_id).state == "executed"
    swept_and_finished(cycle, instruction_id)
    assert cycle.row(instruction_id).state == "final"
    assert cycle.envelope(instruction_id) == told
    assert cycle.count("users") == 1


def test_what_ended_without_its_work_stays_so(cycle: Cycle, crash: Crash) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    cycle.sql("UPDATE instructions SET deadline_at = now() - interval '1 second'")
    eventually(lambda: sweep()["expired"] == 1)

    crash()

    assert cycle.row(instruction_id).state == "final"
    assert failure(cycle.envelope(instruction_id)).code == "deadline_exceeded"
