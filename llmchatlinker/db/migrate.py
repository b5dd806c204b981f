"""Bringing the database to the schema of this version, while workers are at work.

Each migration is a transaction of its own, waits for a table's lock for a short time only, and is tried
again: a statement that waits for a lock has everybody else wait behind it. No table is ever dropped by
a start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from llmchatlinker.db.schema import SCHEMA_LOCK, Schema, read_schema, too_new
from llmchatlinker.db.sessions import Database, database
from llmchatlinker.errors import Unavailable

logger = logging.getLogger(__name__)

SCRIPTS = Path(__file__).parent / "migrations"
#: Where migrations are; more than one folder only in tests.
VERSIONS = [SCRIPTS / "versions"]
#: Seconds that a statement waits for a lock, and that it then leaves the table to others.
LOCK_TIMEOUT = 2.0
PAUSE = 3.0
#: How often a migration that does not get its lock is tried.
TRIES = 40
#: Seconds between two looks whether another process has done with migrating.
LOOK = 0.2
#: PostgreSQL's lock_not_available and deadlock_detected.
LOCKED = ("55P03", "40P01")


def migrate(
    target: Database | None = None,
    *,
    patience: float = 30.0,
    report: Callable[[str], None] = lambda revision: None,
) -> list[str]:
    """Apply what is missing; return the revisions applied, oldest first. ``report`` is called with each
    as it begins, and again where it is tried again.

    Waits ``patience`` seconds for PostgreSQL, and for another process that migrates as long as that
    takes. Raises Unavailable when PostgreSQL, or a lock on a table, can't be had; what was applied until
    then stays, and the next call goes on from there.
    """
    chosen = target or database()
    chosen.run(lambda session: None, patience=patience)
    with _alone(chosen):
        before = read_schema(chosen)
        waiting = _between(before)
        if waiting:
            _upgrade(chosen, report)
    for revision in waiting:
        logger.info("Migration %s applied", revision)
    return waiting


def pending(target: Database | None = None) -> list[str]:
    """The revisions that ``migrate`` would apply; none where a newer version has migrated.

    Raises ConfigurationError where that one no longer works with this version.
    """
    return _between(read_schema(target or database()))


def _config(connection: Any = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    folders = "\n".join(str(folder) for folder in VERSIONS)
    config.set_main_option("version_locations", folders.replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """All that this version knows, oldest first."""
    scripts = ScriptDirectory.from_config(_config())
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _between(schema: Schema) -> list[str]:
    known = revisions()
    if schema.revision is None:
        return known
    if schema.revision not in known:
        if schema.revision < known[-1] or schema.oldest > known[-1]:
            raise too_new(schema)
        return []
    return known[known.index(schema.revision) + 1 :]


@contextmanager
def _alone(chosen: Database) -> Iterator[None]:
    """Hold the lock of all migrations, in a transaction that does nothing else.

    Tried and never waited for: who waits in a statement has a snapshot, and CREATE INDEX CONCURRENTLY
    waits for all of those. Each would wait for the other for ever.
    """
    with chosen.engine.connect() as holder:
        said = False
        while True:
            holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            if holder.scalar(
                text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": SCHEMA_LOCK}
            ):
                break
            holder.rollback()
            if not said:
                logger.info("Another process migrates the database; waiting for it")
                said = True
            threading.Event().wait(LOOK)
        yield
        holder.rollback()


def _upgrade(chosen: Database, report: Callable[[str], None]) -> None:
    tries = 0
    while True:
        tries += 1
        try:
            with chosen.engine.connect() as connection:
                try:
                    for setting in (f"lock_timeout = '{LOCK_TIMEOUT}s'", "statement_timeout = 0"):
                        connection.exec_driver_sql(f"SET {setting}")
                    connection.commit()
                    for revision in _between(read_schema(chosen)):
                        report(revision)
                        command.upgrade(_config(connection), revision)
                finally:
                    connection.invalidate()  # its settings are not for the pool
                return
        except DBAPIError as error:
            if getattr(error.orig, "pgcode", None) not in LOCKED:
                raise
            if tries >= TRIES:
                raise Unavailable(
                    "A migration does not get its lock: some transaction keeps a table for too long. "
                    "Look for it in pg_stat_activity (the oldest xact_start), and migrate again.",
                    {"server": "postgresql", "address": chosen.address},
                ) from None
            logger.info("A migration waits for a table that is in use; trying again")
            time.sleep(PAUSE)
