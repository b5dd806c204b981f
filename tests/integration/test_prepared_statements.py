"""Prepared statements, also where a pooler changes the server connection underneath."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker.db.prepared import prepared
from llmchatlinker.db.sessions import Database
from tests.fixtures.threads import eventually

SQL = "SELECT CAST(%(number)s AS int) + 1"


def ask(database: Database, number: int) -> Any:
    return database.statement(SQL, {"number": number}, prepare=True)[0][0]


def on_its_connection(database: Database, sql: str) -> Any:
    """Run ``sql`` on the pool's one warm connection."""
    return database.statement(sql, {})


def test_a_statement_is_prepared_once_per_connection(database: Database) -> None:
    assert [ask(database, number) for number in range(3)] == [1, 2, 3]
    rows = on_its_connection(database, "SELECT name FROM pg_prepared_statements")
    assert rows == [(prepared(SQL).name,)]


def test_a_connection_that_has_lost_its_statements_gets_them_again(database: Database) -> None:
    ask(database, 1)
    on_its_connection(database, "DEALLOCATE ALL")
    assert ask(database, 2) == 3


def test_a_statement_that_somebody_else_prepared_here_is_used(database: Database) -> None:
    on_its_connection(database, prepared(SQL).prepare.replace("%", "%%"))
    assert ask(database, 4) == 5


def test_a_column_that_a_migration_changed_is_read_anew(database: Database) -> None:
    sql = "SELECT * FROM kept"
    on_its_connection(database, "CREATE TABLE kept AS SELECT 1 AS number")
    assert database.statement(sql, {}, prepare=True) == [(1,)]
    on_its_connection(database, "ALTER TABLE kept ALTER number TYPE text")
    assert database.statement(sql, {}, prepare=True) == [("1",)]


GROWN = "SELECT id FROM grown WHERE id = %(id)s"


def plan_of(database: Database) -> str:
    """How the one connection runs what is prepared there."""
    explained = on_its_connection(database, f"EXPLAIN EXECUTE {prepared(GROWN).name} (1)")
    return str(explained)


def test_a_plan_for_a_small_table_is_not_kept_while_it_grows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchatlinker.db.prepared.FIRST_PLANS", 0.2)
    on_its_connection(database, "CREATE TABLE grown (id int PRIMARY KEY, padding text)")
    on_its_connection(database, "VACUUM ANALYZE grown")
    database.statement(GROWN, {"id": 1}, prepare=True)
    assert "Seq Scan" in plan_of(database)
    rows = "SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n"
    on_its_connection(database, f"INSERT INTO grown {rows}")

    def planned_anew() -> bool:
        database.statement(GROWN, {"id": 1}, prepare=True)
        return "Index" in plan_of(database)

    eventually(planned_anew)


def test_a_plan_does_not_depend_on_the_values(database: Database) -> None:
    ask(database, 1)

    assert on_its_connection(database, "SHOW plan_cache_mode") == [("force_generic_plan",)]
