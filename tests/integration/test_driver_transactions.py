"""Transactions past the ORM: whole or not at all, and the connection goes back as it came."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest

from llmchatlinker.db.driver import Rows, Transaction
from llmchatlinker.db.sessions import Database

INSERT = "INSERT INTO users (username) VALUES (%(name)s) RETURNING username"
COUNT = "SELECT count(*) FROM users"
PID = "SELECT pg_backend_pid()"


def users(database: Database) -> Any:
    return database.statement(COUNT, {})[0][0]


def pid(database: Database) -> Any:
    return database.statement(PID, {})[0][0]


def test_what_is_done_in_one_is_committed_together(database: Database) -> None:
    def work(rows: Rows) -> Any:
        rows({"name": "ada"}, INSERT)
        assert users(database) == 0  # on another connection
        return rows({"name": "bob"}, INSERT)

    assert database.run_on_driver(work) == [("bob",)]

    assert users(database) == 2


def test_several_statements_take_one_round_trip_and_the_last_ones_rows_come_back(
    database: Database,
) -> None:
    assert database.run_on_driver(lambda rows: rows({"name": "ada"}, INSERT, COUNT)) == [(1,)]


def test_an_error_of_the_work_takes_everything_back_and_the_connection_stays(
    database: Database,
) -> None:
    before = pid(database)

    def work(rows: Rows) -> None:
        rows({"name": "ada"}, INSERT)
        raise LookupError("not that one")

    with pytest.raises(LookupError):
        database.run_on_driver(work)

    assert users(database) == 0
    assert pid(database) == before


def test_an_error_of_a_statement_takes_everything_back_and_the_connection_goes(
    database: Database,
) -> None:
    before = pid(database)

    def work(rows: Rows) -> None:
        rows({"name": "ada"}, INSERT)
        rows({}, "SELECT 1 / 0")

    with pytest.raises(psycopg2.errors.DivisionByZero):
        database.run_on_driver(work)

    assert users(database) == 0
    assert pid(database) != before


def test_a_constraint_that_is_broken_takes_everything_back_and_the_connection_stays(
    database: Database,
) -> None:
    before = pid(database)

    def work(rows: Rows) -> None:
        rows({"name": "ada"}, INSERT)
        rows({"name": "ada"}, INSERT)

    with pytest.raises(psycopg2.errors.UniqueViolation):
        database.run_on_driver(work)

    assert users(database) == 0
    assert pid(database) == before


def test_the_connection_stays_where_the_first_statement_breaks_a_constraint(
    database: Database,
) -> None:
    database.statement(INSERT, {"name": "ada"})
    before = pid(database)

    with pytest.raises(psycopg2.errors.UniqueViolation):
        database.run_on_driver(lambda rows: rows({"name": "ada"}, INSERT))

    assert users(database) == 1
    assert pid(database) == before


def test_the_connection_stays_where_a_lock_was_waited_for_too_long(database: Database) -> None:
    database.statement(INSERT, {"name": "ada"})
    lock = "SELECT FROM users FOR UPDATE"
    waiting: list[int] = []

    def waits(rows: Rows) -> None:
        waiting.append(rows({}, "SELECT set_config('lock_timeout', '10ms', true)", PID)[0][0])
        rows({}, lock)

    def holds(rows: Rows) -> None:
        rows({}, lock)
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            database.run_on_driver(waits)

    database.run_on_driver(holds)

    alive = "SELECT pid FROM pg_stat_activity WHERE pid = %(pid)s"
    assert database.statement(alive, {"pid": waiting[0]}) == [(waiting[0],)]


def test_a_process_that_is_told_to_stop_in_one_leaves_none_open(database: Database) -> None:
    before = pid(database)

    def work(rows: Rows) -> None:
        rows({"name": "ada"}, INSERT)
        raise SystemExit

    with pytest.raises(SystemExit):
        database.run_on_driver(work)

    assert users(database) == 0
    assert pid(database) != before


def test_work_without_a_statement_is_no_transaction(database: Database) -> None:
    assert database.run_on_driver(lambda rows: "nothing") == "nothing"


def test_a_connection_that_is_gone_is_no_failure(database: Database) -> None:
    tried: list[int] = []

    def work(rows: Rows) -> Any:
        tried.append(rows({}, PID)[0][0])
        if len(tried) == 1:
            database.statement("SELECT pg_terminate_backend(%(pid)s)", {"pid": tried[0]})
        return rows({"name": "ada"}, INSERT)

    assert database.run_on_driver(work) == [("ada",)]

    assert len(tried) == 2
    assert users(database) == 1


def test_a_connection_that_has_lost_its_statements_gets_them_again(database: Database) -> None:
    database.run_on_driver(lambda rows: rows({}, COUNT))
    database.statement("DEALLOCATE ALL", {})

    assert database.run_on_driver(lambda rows: rows({}, COUNT)) == [(0,)]


def test_a_last_statement_is_committed_with_what_was_before_it(database: Database) -> None:
    def work(rows: Transaction) -> Any:
        rows({"name": "ada"}, INSERT)
        rows.last({"name": "bob"}, INSERT)
        return rows({}, COUNT)

    assert database.run_on_driver(work) == [(1,)], "it runs at the end"
    assert users(database) == 2


def test_a_last_statement_alone_is_a_transaction(database: Database) -> None:
    before = pid(database)

    database.run_on_driver(lambda rows: rows.last({"name": "ada"}, INSERT))

    assert users(database) == 1
    assert pid(database) == before


def test_no_last_statement_runs_where_the_work_fails(database: Database) -> None:
    def work(rows: Transaction) -> None:
        rows.last({"name": "ada"}, INSERT)
        raise LookupError("not that one")

    with pytest.raises(LookupError):
        database.run_on_driver(work)

    assert users(database) == 0


def test_a_last_statement_that_fails_takes_everything_back(database: Database) -> None:
    def work(rows: Transaction) -> None:
        rows({"name": "ada"}, INSERT)
        rows.last({}, "SELECT 1 / 0")

    with pytest.raises(psycopg2.errors.DivisionByZero):
        database.run_on_driver(work)

    assert users(database) == 0
