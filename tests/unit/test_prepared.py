"""A statement with psycopg2's named values, as one that PostgreSQL prepares."""

from __future__ import annotations

from llmchatlinker.db.prepared import prepared


def test_a_value_that_is_named_twice_is_one_parameter() -> None:
    statement = prepared("SELECT %(a)s, %(b)s, %(a)s")
    assert statement.prepare.endswith(" AS SELECT $1, $2, $1")
    assert statement.run.endswith("(%(a)s, %(b)s)")


def test_a_doubled_percent_sign_is_one_in_the_prepared_text() -> None:
    assert prepared("SELECT 'a' LIKE '%%'").prepare.endswith("LIKE '%'")


def test_a_statement_without_values_takes_no_list() -> None:
    statement = prepared("SELECT 1")
    assert statement.run == f"EXECUTE {statement.name}"


def test_another_text_has_another_name() -> None:
    assert prepared("SELECT 1").name != prepared("SELECT 2").name
