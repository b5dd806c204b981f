"""The schema: migrations lead to what the models say, from any number of processes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from functools import partial

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from llmchatlinker.db.migrate import migrate, pending
from llmchatlinker.db.models import Base
from llmchatlinker.db.sessions import Database
from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import Settings
from tests.fixtures.databases import PREFIX
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


def test_migrations_lead_to_what_the_models_say(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_an_empty_database_is_migrated_once(empty: Database) -> None:
    waiting = pending(empty)

    assert waiting
    assert migrate(empty) == waiting
    assert pending(empty) == []
    assert migrate(empty) == []


def test_many_may_migrate_at_once(empty: Database) -> None:
    applied = at_once([partial(migrate, empty)] * 4)

    assert sorted(map(bool, applied)) == [False, False, False, True]


def test_a_newer_schema_is_left_alone(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(ConfigurationError, match="9999"):
        pending(database)
