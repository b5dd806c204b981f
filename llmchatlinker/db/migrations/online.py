"""What a migration may do while workers of two versions are at work, each in the way that lets them.

No step rewrites a table or reads it under a lock that stops writers. Each may be run again: a migration
that did not get a lock begins once more. ``docs/upgrading.md`` has the rules, a test applies them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import context, op

#: Rows that a transaction of a backfill changes.
BATCH = 1_000

_INVALID = """
    SELECT EXISTS (SELECT FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                    WHERE relname = :name AND NOT indisvalid)
"""


def add_column(table: str, column: sa.Column[Any]) -> None:
    """Add a column that may be null, or has a constant default: old workers don't know it."""
    op.add_column(table, column, if_not_exists=True)


def create_index(name: str, table: str, columns: Sequence[Any], **options: Any) -> None:
    """CREATE INDEX CONCURRENTLY; what an earlier try has left unfinished goes first."""
    with _OutsideOfTransactions():
        if not context.is_offline_mode() and op.get_bind().scalar(
            sa.text(_INVALID), {"name": name}
        ):
            op.drop_index(name, postgresql_concurrently=True, if_exists=True)
        op.create_index(
            name, table, list(columns), postgresql_concurrently=True, if_not_exists=True, **options
        )


def drop_index(name: str) -> None:
    """DROP INDEX CONCURRENTLY."""
    with _OutsideOfTransactions():
        op.drop_index(name, postgresql_concurrently=True, if_exists=True)


def add_check(name: str, table: str, condition: str) -> None:
    """A constraint that holds for new rows at once, and is then looked up in the old ones."""
    op.execute(f'ALTER TABLE "{table}" DROP CONSTRAINT IF EXISTS "{name}"')
    op.execute(f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" CHECK ({condition}) NOT VALID')
    _validate(name, table)


def add_foreign_key(
    name: str, table: str, column: str, other: str, other_column: str = "id", rest: str = ""
) -> None:
    """The same for a foreign key; ``rest``: ON DELETE and what else is to be said."""
    op.execute(f'ALTER TABLE "{table}" DROP CONSTRAINT IF EXISTS "{name}"')
    op.execute(
        f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" FOREIGN KEY ("{column}")'
        f' REFERENCES "{other}" ("{other_column}") {rest} NOT VALID'
    )
    _validate(name, table)


def set_not_null(table: str, column: str) -> None:
    """NOT NULL, once a constraint that says the same spares the look at every row."""
    name = f"ck_{table}_{column}_not_null"
    add_check(name, table, f'"{column}" IS NOT NULL')
    op.execute(f'ALTER TABLE "{table}" ALTER COLUMN "{column}" SET NOT NULL')
    op.execute(f'ALTER TABLE "{table}" DROP CONSTRAINT IF EXISTS "{name}"')


def backfill(table: str, key: str, change: str, condition: str) -> None:
    """UPDATE … SET ``change`` WHERE ``condition``, until no row fulfils it, in small transactions."""
    if context.is_offline_mode():
        return
    statement = sa.text(
        f'UPDATE "{table}" SET {change} WHERE "{key}" IN (SELECT "{key}" FROM "{table}"'
        f' WHERE {condition} ORDER BY "{key}" LIMIT {BATCH} FOR UPDATE SKIP LOCKED)'
    )
    left = sa.text(f'SELECT EXISTS (SELECT FROM "{table}" WHERE {condition})')
    with _OutsideOfTransactions():
        while op.get_bind().execute(statement).rowcount or op.get_bind().scalar(left):
            pass


def works_from(revision: str) -> None:
    """Say that code which does not know ``revision`` no longer works from here on."""
    op.execute(f"UPDATE compatibility SET oldest = '{revision}' WHERE oldest < '{revision}'")


def _validate(name: str, table: str) -> None:
    # A transaction of its own: the one before held a lock that stops writers.
    with _OutsideOfTransactions():
        op.execute(f'ALTER TABLE "{table}" VALIDATE CONSTRAINT "{name}"')


class _OutsideOfTransactions:
    """Each statement commits by itself, and waits for as long as it takes: it stops nobody."""

    def __enter__(self) -> None:
        self._block = op.get_context().autocommit_block()
        self._block.__enter__()
        op.execute("SET lock_timeout = 0")

    def __exit__(self, *error: Any) -> None:
        if error[0] is None:
            op.execute("RESET lock_timeout")
        self._block.__exit__(*error)
