"""The servers of a run: a private RabbitMQ and a private, durable PostgreSQL.

PostgreSQL runs with the settings of the embedded mode, so ``fsync`` and ``synchronous_commit`` are
on: a commit is on disk before it is answered.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg2

from benchmarks.processes import cpu_seconds
from llmchatlinker import broker_policies
from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import Database
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.errors import StartFailed
from llmchatlinker.settings import Settings
from tests.servers.rabbitmq import PrivateRabbitMQ

SAMPLE_SECONDS = 0.1
USERS = 10


@dataclass(frozen=True)
class Place:
    """A virtual host and a database that one side has to itself."""

    name: str
    database_url: str
    broker_url: str

    @property
    def plain_url(self) -> str:
        """The database's URL as psycopg2 itself takes it."""
        return self.database_url.replace("+psycopg2", "", 1)

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run statements in a transaction of their own; the rows of the last one, if it has any."""
        connection = psycopg2.connect(self.plain_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def vacuum(self) -> None:
        """Let PostgreSQL know the tables' sizes, as autovacuum would some minutes later."""
        connection = psycopg2.connect(self.plain_url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute("VACUUM ANALYZE")
        finally:
            connection.close()


class Servers:
    """Both servers, in a temporary folder that goes with them."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-bench-"))
        # For root PostgreSQL runs as another user, who has to get there.
        self._directory.chmod(0o755)
        self._rabbitmq = PrivateRabbitMQ()
        self._postgres = EmbeddedPostgres(self._directory / "postgres")

    def __enter__(self) -> Self:
        try:
            self._rabbitmq.start()
            self._postgres.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop both and remove their data."""
        self._postgres.stop()
        self._rabbitmq.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def add_place(self, name: str) -> Place:
        """A new virtual host with the product's policies, and a database with its schema."""
        unique = f"bench_{name.replace('-', '_')}_{secrets.token_hex(3)}"
        self._postgres.ensure_database(unique)
        place = Place(unique, self._postgres.url(unique), self._rabbitmq.add_vhost(unique))
        for policy_name, policy in broker_policies.policies().items():
            self._rabbitmq.set_policy(
                unique,
                policy_name,
                policy["pattern"],
                policy["definition"],
                apply_to=policy["apply-to"],
                priority=policy["priority"],
            )
        database = Database(Settings(database_url=place.database_url))
        try:
            migrate(database)
        finally:
            database.dispose()
        place.sql(
            "INSERT INTO users (username) SELECT 'user-' || n FROM generate_series(1, %s) n", USERS
        )
        return place

    def remove_place(self, place: Place) -> None:
        """Drop the database and the virtual host, so that nothing of them burdens what follows."""
        self._rabbitmq.delete_vhost(place.name)
        with suppress(StartFailed):  # stopped in the middle of an outage: it goes with the server
            self._postgres.drop_database(place.name)

    def cpu(self) -> dict[str, float]:
        """CPU seconds that each server has used so far."""
        postgres = self._postgres.pid
        assert postgres is not None
        return {"rabbitmq": cpu_seconds(self._rabbitmq.pid), "postgresql": cpu_seconds(postgres)}

    def versions(self) -> dict[str, str]:
        """The servers' versions."""
        connection = psycopg2.connect(self._postgres.url("postgres").replace("+psycopg2", "", 1))
        try:
            number = connection.server_version
        finally:
            connection.close()
        return {
            "rabbitmq": self._rabbitmq.ctl("version").strip(),
            "postgresql": f"{number // 10_000}.{number % 10_000}",
        }


class ConnectionSampler:
    """The most connections that a database had at once, looked at every 0.1 s while it is open.

    Its own connection goes to the same database and is not counted.
    """

    def __init__(self, place: Place) -> None:
        self.most = 0
        self.most_in_transaction = 0
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
        self._connection = psycopg2.connect(place.plain_url)
        self._connection.autocommit = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        query = (
            "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()"
        )
        with self._connection.cursor() as cursor:
            while not self._stop.wait(SAMPLE_SECONDS):
                cursor.execute(query, (self._place.name,))
                row = cursor.fetchone()
                assert row is not None
                self.most = max(self.most, row[0])
                self.most_in_transaction = max(self.most_in_transaction, row[1])
