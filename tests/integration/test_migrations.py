"""The schema: migrations lead to what the models say, from any number of processes, at any time."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Table, text

from llmchatlinker.db import migrate as migrations
from llmchatlinker.db.migrate import migrate, pending
from llmchatlinker.db.models import Base
from llmchatlinker.db.schema import check_schema
from llmchatlinker.db.sessions import Database
from llmchatlinker.errors import ConfigurationError, Unavailable
from llmchatlinker.settings import Settings
from tests.fixtures.databases import PREFIX
from tests.fixtures.made_up_migrations import BUSY, write
from tests.fixtures.servers import PostgresServer
from tests.fixtures.threads import at_once


@pytest.fixture
def empty(postgres_server: PostgresServer) -> Iterator[Database]:
    """A database without any table."""
    name = PREFIX + secrets.token_hex(6)
    database = Database(Settings(database_url=postgres_server.create(name)))
    yield database
    database.dispose()
    postgres_server.drop(name)


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A next version's migration: it adds, everything that one may, and takes nothing away."""
    monkeypatch.setattr(migrations, "VERSIONS", [*migrations.VERSIONS, write(tmp_path)])


def sql(database: Database, statement: str) -> None:
    with database.engine.begin() as connection:
        connection.execute(text(statement))


def test_migrations_lead_to_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_tables_that_are_purged_are_vacuumed_early(database: Database) -> None:
    with database.engine.connect() as connection:
        found = connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE reloptions @> '{autovacuum_vacuum_scale_factor=0.02}'"
        )
        tables = {row[0] for row in found}
    wanted = {name for name, table in Base.metadata.tables.items() if _vacuumed_early(table)}
    assert tables == wanted
    assert {"instructions", "events", "attempts"} < tables


def _vacuumed_early(table: Table) -> bool:
    return bool(table.dialect_options["postgresql"]["with"])


def test_an_empty_database_is_migrated_once(empty: Database) -> None:
    with pytest.raises(ConfigurationError, match="no schema yet"):
        check_schema(empty)
    waiting = pending(empty)

    assert waiting
    begun: list[str] = []
    assert migrate(empty, report=begun.append) == begun == waiting
    assert pending(empty) == []
    assert migrate(empty) == []
    check_schema(empty)


def test_many_may_migrate_at_once(empty: Database, newer: None) -> None:
    """An index is built concurrently in it: who waits for the lock must not be waited for."""
    all_of_them = len(migrations.revisions())
    applied = at_once([partial(migrate, empty)] * 4)

    assert sorted(map(len, applied)) == [0, 0, 0, all_of_them]


def test_what_a_newer_version_has_added_is_no_trouble(database: Database, newer: None) -> None:
    assert migrate(database) == [BUSY]
    migrations.VERSIONS.pop()

    assert pending(database) == []
    assert migrate(database) == []
    check_schema(database)


def test_what_a_newer_version_has_taken_away_is_said(database: Database) -> None:
    sql(database, "UPDATE alembic_version SET version_num = '9999'")
    sql(database, "UPDATE compatibility SET oldest = '9999'")

    for look in (pending, migrate, check_schema):
        with pytest.raises(ConfigurationError, match="9999.*Upgrade this installation"):
            look(database)


def test_an_older_schema_is_said_with_what_to_do(database: Database) -> None:
    sql(database, "UPDATE alembic_version SET version_num = '0000'")

    with pytest.raises(ConfigurationError, match="0000.*llmchatlinker migrate"):
        check_schema(database)


def test_a_table_in_use_is_waited_for_without_holding_up_others(
    database: Database, newer: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LOCK_TIMEOUT", 0.05)
    monkeypatch.setattr(migrations, "PAUSE", 0.05)
    applied: list[list[str]] = []
    with database.engine.connect() as reader:
        reader.execute(text("SELECT FROM instructions"))  # its lock lasts as long as it is open
        with monkeypatch.context() as briefly, pytest.raises(Unavailable, match="pg_stat_activity"):
            briefly.setattr(migrations, "TRIES", 2)
            migrate(database)
        thread = threading.Thread(target=lambda: applied.append(migrate(database)))
        thread.start()
        with database.engine.begin() as writer:
            writer.execute(text("SET LOCAL lock_timeout = '30s'"))
            writer.execute(text("UPDATE instructions SET starts = 0"))
        reader.rollback()
    thread.join(60)

    assert applied == [[BUSY]]


def test_an_index_that_was_left_unfinished_is_built_anew(database: Database, newer: None) -> None:
    sql(database, "CREATE INDEX ix_made_up ON instructions (type)")
    sql(
        database,
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_made_up'::regclass",
    )

    migrate(database)

    with database.engine.connect() as connection:
        found = connection.scalar(
            text("SELECT indisvalid FROM pg_index WHERE indexrelid = 'ix_made_up'::regclass")
        )
    assert found
