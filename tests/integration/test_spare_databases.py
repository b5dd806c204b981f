"""The databases that tests use one after the other: each is as good as new."""

from __future__ import annotations

from contextlib import closing

import psycopg2
import pytest

from tests.fixtures.databases import PREFIX, Copies
from tests.fixtures.servers import PostgresServer


def run(server: PostgresServer, name: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(server.url(name))) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        rows = cursor.fetchall() if cursor.description else []
        connection.commit()
        return rows


@pytest.fixture
def copies(postgres_server: PostgresServer, database_name: str) -> Copies:
    """Copies of a template with a row, a sequence and a foreign key."""
    run(
        postgres_server,
        database_name,
        "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7);"
        "CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE b (a int REFERENCES a)",
    )
    return Copies(postgres_server, database_name)


def test_one_that_was_used_is_cleaned_and_has_a_new_name(
    copies: Copies, postgres_server: PostgresServer
) -> None:
    name = copies.make()
    stays = psycopg2.connect(postgres_server.url(name))
    run(postgres_server, name, "INSERT INTO a DEFAULT VALUES; INSERT INTO b VALUES (1)")
    run(postgres_server, name, "UPDATE kept SET n = 8")

    copies.give_back(name)
    again = copies.make()

    assert again != name and again.startswith(PREFIX)
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        psycopg2.connect(postgres_server.url(name))
    with pytest.raises(psycopg2.Error):
        stays.cursor().execute("SELECT 1")
    stays.close()
    assert run(postgres_server, again, "SELECT n FROM kept") == [(7,)]
    assert run(postgres_server, again, "SELECT * FROM b") == []
    assert run(postgres_server, again, "INSERT INTO a DEFAULT VALUES RETURNING id") == [(1,)]
    copies.give_back(again)
    copies.close()
    assert postgres_server.connections(again) == 0


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE a ADD COLUMN more int",
        "DROP TABLE b",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE a DISABLE TRIGGER ALL",
        "GRANT SELECT ON a TO PUBLIC",
        "ANALYZE kept",
    ],
)
def test_one_whose_schema_was_changed_is_used_no_more(
    copies: Copies, postgres_server: PostgresServer, change: str
) -> None:
    name = copies.make()
    run(postgres_server, name, change)

    copies.give_back(name)

    assert copies._clean == []
