"""The process's one bounded pool of PostgreSQL connections, and the only way to a transaction.

``Database.run`` runs a function in a transaction and runs it *again* when the connection broke, so
the function must find out for itself what an earlier run has committed: a commit whose answer was
lost looks like a failure.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import psycopg2
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from llmchatlinker.db import bounds
from llmchatlinker.db.driver import IN_THE_WAY, Transaction
from llmchatlinker.db.prepared import prepared
from llmchatlinker.errors import Unavailable
from llmchatlinker.outages import Outage
from llmchatlinker.settings import Settings, get_settings, without_password

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

#: Serialisation failure and deadlock: PostgreSQL asks for the transaction to be run again
#: (https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html). 0A000: a
#: migration changed what a prepared statement returns; the next connection prepares it anew. 26000:
#: it is prepared no longer.
RUN_AGAIN = ("40001", "40P01", "0A000", "26000")
RUN_AGAIN_AT_MOST = 10
CHECK = "Check that it runs and that LLMCHATLINKER_DATABASE_URL is right."
#: The system's words for ENOSPC and EROFS, which PostgreSQL's errors end with.
FULL_DISK = os.strerror(errno.ENOSPC)
READ_ONLY_DISK = os.strerror(errno.EROFS)
#: How PostgreSQL turns a connection away when there are enough (proc.c, postinit.c). The driver has no
#: code for what fails before there is a connection.
NO_ROOM = ("too many clients", "connection slots are reserved", "too many connections for")
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 2.0


class Unanswered(Unavailable):
    """PostgreSQL was sent a statement and did not answer: it may have been done."""


class Database:
    """A pool of at most ``settings.database_pool_size`` connections, made anew after a fork."""

    def __init__(self, settings: Settings) -> None:
        self.address = without_password(settings.database_url)
        self._settings = settings
        self._engine: Engine | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._outage = Outage(f"PostgreSQL at {self.address}", logger)

    @property
    def engine(self) -> Engine:
        """The engine of this process. A child of a fork gets its own: sockets can't be shared."""
        if self._engine is None or self._pid != os.getpid():
            with self._lock:
                if self._engine is None or self._pid != os.getpid():
                    if self._engine is not None:
                        self._engine.dispose(close=False)  # the parent's sockets stay the parent's
                    self._engine = self._make_engine()
                    self._pid = os.getpid()
        return self._engine

    def _make_engine(self) -> Engine:
        return create_engine(
            self._settings.sqlalchemy_url,
            pool_size=self._settings.database_pool_size,
            max_overflow=0,
            pool_timeout=30,
            pool_use_lifo=True,  # the fewest connections that the load needs stay warm
            pool_recycle=1800,
            hide_parameters=True,  # they are the users' texts, and errors end in logs
            connect_args={
                "connect_timeout": max(2, int(self._settings.client_patience)),
                "application_name": "llmchatlinker",
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
            },
        )

    def run(self, work: Callable[[Session], Result], *, patience: float | None = None) -> Result:
        """Run ``work`` in a transaction and commit it; wait out an outage of PostgreSQL.

        ``patience``: seconds to keep trying; None for as long as it takes (workers). Raises
        Unavailable when patience runs out, and whatever ``work`` raises otherwise.
        """

        def transaction() -> Result:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                return work(session)

        return self._patiently(transaction, patience)

    def run_on_driver(
        self, work: Callable[[Transaction], Result], *, patience: float | None = None
    ) -> Result:
        """The same for ``work`` that needs no Session, which takes as much CPU as its statements."""

        def transaction() -> Result:
            failure: Exception | None = None
            connection = self.engine.raw_connection()
            try:
                driver: Any = connection.driver_connection
                driver.autocommit = True
                statements = Transaction(connection)
                try:
                    result = work(statements)
                except IN_THE_WAY as error:
                    failure = error
                except psycopg2.Error:
                    raise
                except Exception as error:
                    failure = error
                if failure is None:
                    statements.commit()
                else:
                    statements.roll_back()
                driver.autocommit = False
            except BaseException:
                connection.invalidate()  # in what state it is, nobody knows
                raise
            connection.close()  # goes back to the pool
            if failure is not None:
                raise failure
            return result

        return self._patiently(transaction, patience)

    def statement(
        self,
        sql: str,
        values: Mapping[str, Any],
        *,
        patience: float | None = None,
        prepare: bool = False,
        bounded: bool = False,
    ) -> list[Any]:
        """Run one statement that commits by itself, and return its rows; patience as of ``run``.

        For the hot path: ``sql`` and ``values`` are psycopg2's (``%(name)s``). A statement on the
        driver takes a quarter of the CPU of one in a Session. ``prepare``: PostgreSQL parses and plans
        it once per connection; a list among the values is then ``CAST(%(name)s AS text[])`` or
        ``int[]`` in the SQL, and cast further from there. ``bounded``: a frozen server is noticed as
        one that is gone is. Unanswered is raised where a statement may have been done all the same.
        """
        end = None if patience is None or not bounded else time.monotonic() + max(patience, 0.5)
        sent = False

        def alone() -> list[Any]:
            nonlocal sent
            connection = self.engine.raw_connection()
            try:
                driver: Any = connection.driver_connection
                driver.autocommit = True
                sent = True
                within = nullcontext() if end is None else bounds.bounded(driver, end)
                with within, driver.cursor() as cursor:
                    if prepare:
                        prepared(sql).execute(cursor, values, connection.info)
                    else:
                        cursor.execute(sql, values)
                    rows = cursor.fetchall() if cursor.description else []
                driver.autocommit = False
            except BaseException:
                connection.invalidate()  # in what state it is, nobody knows
                raise
            connection.close()  # goes back to the pool
            return rows

        try:
            return self._patiently(alone, patience)
        except Unavailable as error:
            if sent:
                raise Unanswered(error.message, error.details) from None
            raise

    def _patiently(self, attempt: Callable[[], Result], patience: float | None) -> Result:
        started = time.monotonic()
        pause, again = FIRST_PAUSE, 0
        while True:
            try:
                result = attempt()
            except (DBAPIError, psycopg2.Error, PoolTimeout) as error:
                if _asks_to_run_again(error) and again < RUN_AGAIN_AT_MOST:
                    again += 1
                    continue
                if not is_outage(error):
                    raise
                self._outage.failed(_reason(error))
                if patience is not None and time.monotonic() - started + pause > patience:
                    details = {"server": "postgresql", "address": self.address}
                    advice = _advice(error)
                    raise Unavailable(
                        f"PostgreSQL at {self.address} does not answer: {_reason(error)} "
                        f"{advice or CHECK}",
                        details | ({"advice": advice} if advice else {}),
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                self._outage.answered()
                return result

    def dispose(self) -> None:
        """Close the pool's connections; the next use opens new ones."""
        with self._lock:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()
            self._engine = None


def _asks_to_run_again(error: Exception) -> bool:
    return getattr(_original(error), "pgcode", None) in RUN_AGAIN


def is_outage(error: Exception) -> bool:
    """Whether PostgreSQL is gone or can't do what it is asked for now, and may be asked once more."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    original = _original(error)
    # Without a code the connection failed before the server could say why; class 08 is
    # connection, 53 insufficient resources (a full disk is 53100), 57P operator intervention, 58030 an
    # I/O error, 25006 a read-only standby
    # (https://www.postgresql.org/docs/current/errcodes-appendix.html).
    code: str | None = getattr(original, "pgcode", None)
    if code is None:
        return isinstance(original, psycopg2.OperationalError | psycopg2.InterfaceError)
    # A disk that became read-only has the code of a missing right (elog.c, errcode_for_file_access).
    if code == "42501":
        return READ_ONLY_DISK in str(original)
    return code.startswith(("08", "53", "57P", "58030", "25006"))


def _advice(error: Exception) -> str | None:
    """What to do where PostgreSQL has said why; None where it may be anything."""
    said = str(_original(error))
    if FULL_DISK in said:
        return "Its disk is full: make room there, and it goes on from where it was."
    if READ_ONLY_DISK in said:
        return "Its disk has become read-only: see to the disk, then start PostgreSQL again."
    if any(words in said for words in NO_ROOM):
        return (
            "All its connections are in use: raise its max_connections, or lower "
            "LLMCHATLINKER_DATABASE_POOL_SIZE."
        )
    return None


def _original(error: Exception) -> BaseException | None:
    """The driver's own error: SQLAlchemy wraps it, a bare statement does not."""
    return error.orig if isinstance(error, DBAPIError) else error


def _reason(error: Exception) -> str:
    if isinstance(error, PoolTimeout):
        return "every connection of the pool is in use."
    text = str(_original(error)).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if line.endswith((".", "?", "!")) else line + "."


_current: Database | None = None
_current_lock = threading.Lock()


def database() -> Database:
    """The process's database, made at the first call."""
    global _current
    if _current is None:
        with _current_lock:
            if _current is None:
                _current = Database(get_settings())
    return _current


def use_database(replacement: Database | None) -> None:
    """Replace the process's database; ``None``: make it from the settings at the next use."""
    global _current
    previous, _current = _current, replacement
    if previous is not None:
        previous.dispose()
