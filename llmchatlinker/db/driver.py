"""Statements of a transaction that run past the ORM: on psycopg2's cursor, prepared, several at a time.

What every generation does several times would otherwise cost more than the rest of its work: a round
trip costs a thread of a busy process its place at the interpreter, and a statement in a Session four
times the CPU of one on the driver.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from psycopg2 import errors
from sqlalchemy.orm import Session

from llmchatlinker.db.prepared import prepared

#: Two were at the same thing, or somebody's lock was waited for too long: the connection is sound.
IN_THE_WAY = (errors.IntegrityError, errors.LockNotAvailable)


class Rows(Protocol):
    """Runs statements in a transaction that is open; the same as ``rows`` without its session."""

    def __call__(self, values: Mapping[str, Any], *statements: str) -> list[Any]:
        """The last one's rows."""


class Transaction:
    """A transaction of nothing but such statements. ``connection``: a pooled one, in autocommit mode.

    It begins together with its first statement: one round trip less than psycopg2's own. It is ``Rows``.
    """

    def __init__(self, connection: Any) -> None:
        self._notes = connection.info
        self._cursor = connection.driver_connection.cursor()
        self._begin = "BEGIN;"
        self._last: tuple[Mapping[str, Any], str] | None = None

    def __call__(self, values: Mapping[str, Any], *statements: str) -> list[Any]:
        """See ``Rows``."""
        texts = [prepared(sql).ready(self._cursor, self._notes) for sql in statements]
        begin, self._begin = self._begin, ""  # where the statement fails, it has begun
        self._cursor.execute(begin + ";".join(texts), values)
        return self._cursor.fetchall() if self._cursor.description else []

    def last(self, values: Mapping[str, Any], statement: str) -> None:
        """Have it run together with the commit, one round trip less: what it finds nobody sees."""
        self._last = values, statement

    def commit(self) -> None:
        """Commit, after the last statement, if there is one."""
        if self._last is not None:
            values, statement = self._last
            text = prepared(statement).ready(self._cursor, self._notes)
            self._cursor.execute(f"{self._begin}{text};COMMIT", values)
        elif not self._begin:
            self._cursor.execute("COMMIT")
        self._cursor.close()

    def roll_back(self) -> None:
        """Leave nothing behind."""
        if not self._begin:
            self._cursor.execute("ROLLBACK")
        self._cursor.close()


def within(session: Session) -> Rows:
    """Runs statements in the session's transaction."""
    return partial(rows, session)


def rows(session: Session, values: Mapping[str, Any], *statements: str) -> list[Any]:
    """Run them one after the other in the session's transaction, in one round trip; the last one's rows.

    Each sees what was committed while the one before it waited for a lock. ``values`` are for all of
    them, as psycopg2 takes them (``%(name)s``). What the session has not flushed yet, they don't see.
    """
    connection = session.connection()
    driver: Any = connection.connection
    with driver.cursor() as cursor:
        try:
            texts = [prepared(sql).ready(cursor, driver.info) for sql in statements]
            cursor.execute(";".join(texts), values)
        except (errors.InvalidSqlStatementName, errors.FeatureNotSupported):
            connection.invalidate()  # what was prepared on it is gone, or was for tables of old
            raise
        found: list[Any] = cursor.fetchall() if cursor.description else []
    return found
