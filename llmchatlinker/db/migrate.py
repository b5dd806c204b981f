"""Bringing the database to the schema of this version. No table is ever dropped by a start."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.db.sessions import Database, database
from llmchatlinker.errors import ConfigurationError

logger = logging.getLogger(__name__)

SCRIPTS = Path(__file__).parent / "migrations"
#: Any number, but always this one: two migrations at once wait for each other.
LOCK = 0x11C4A7


def _config(connection: Any = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def migrate(target: Database | None = None, *, patience: float = 30.0) -> list[str]:
    """Apply what is missing; return the revisions applied, oldest first.

    Waits ``patience`` seconds for PostgreSQL. Safe to run from many processes at once.
    """
    chosen = target or database()

    def work(session: Session) -> list[str]:
        connection = session.connection()
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        before = _current(connection)
        command.upgrade(_config(connection), "head")
        return _between(before)

    applied = chosen.run(work, patience=patience)
    for revision in applied:
        logger.info("Migration %s applied", revision)
    return applied


def pending(target: Database | None = None) -> list[str]:
    """The revisions that ``migrate`` would apply."""
    chosen = target or database()
    before = chosen.run(lambda session: _current(session.connection()), patience=5.0)
    return _between(before)


def _current(connection: Any) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _between(before: str | None) -> list[str]:
    scripts = ScriptDirectory.from_config(_config())
    revisions = [script.revision for script in scripts.walk_revisions()][::-1]
    if before is None:
        return revisions
    if before not in revisions:
        raise ConfigurationError(
            f"The database is at revision {before}, which this version does not know: "
            "a newer LLMChatLinker has migrated it. Upgrade this installation."
        )
    return revisions[revisions.index(before) + 1 :]
