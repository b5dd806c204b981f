"""Whether this version and the database's schema go together. No Alembic: every client looks here once.

A schema may be newer than the code: migrations that only add are applied while the previous version's
workers and clients go on. A migration that takes something away says, in the table ``compatibility``,
the oldest revision whose code can do without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from llmchatlinker.db.sessions import Database, database
from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import get_settings

#: The revision that this version's code needs: the newest one in ``migrations/versions``.
NEEDED = "0003"
#: Any number, but always this one: two migrations at once wait for each other.
SCHEMA_LOCK = 0x11C4A7
_UNDEFINED_TABLE = "42P01"

#: The database that this process has looked at last.
_checked: Database | None = None


@dataclass(frozen=True, slots=True)
class Schema:
    """``revision``: None where there is no schema; ``oldest``: what code has to know at least."""

    revision: str | None
    oldest: str


def read_schema(target: Database, patience: float | None = 5.0) -> Schema:
    """What the database says. Raises Unavailable after ``patience`` seconds without PostgreSQL."""

    def look(session: Session) -> Schema:
        revision: str | None = session.scalar(text("SELECT max(version_num) FROM alembic_version"))
        if revision is None:
            return Schema(None, "")
        return Schema(revision, str(session.scalar(text("SELECT oldest FROM compatibility"))))

    try:
        return target.run(look, patience=patience)
    except ProgrammingError as error:
        if getattr(error.orig, "pgcode", None) != _UNDEFINED_TABLE:
            raise
        return Schema(None, "")


def check_schema(target: Database | None = None) -> None:
    """Raise ConfigurationError unless this version works with the database's schema.

    Looks once per process and database; Unavailable where that takes longer than a client's patience.
    """
    global _checked
    chosen = target or database()
    if _checked is chosen:
        return
    schema = read_schema(chosen, get_settings().client_patience)
    if schema.revision is None:
        raise _too_old("The database has no schema yet", schema)
    if schema.revision < NEEDED:
        raise _too_old(f"The database is at revision {schema.revision}", schema)
    if schema.oldest > NEEDED:
        raise too_new(schema)
    _checked = chosen


def _too_old(what: str, schema: Schema) -> ConfigurationError:
    return ConfigurationError(
        f"{what}, and this version needs {NEEDED}. Run `llmchatlinker migrate`, then start this again.",
        _details(schema),
    )


def too_new(schema: Schema) -> ConfigurationError:
    """The error of code that is too old for the schema."""
    return ConfigurationError(
        f"The database is at revision {schema.revision}, which works with versions that know "
        f"{schema.oldest or 'it'}; this one knows {NEEDED}. Upgrade this installation.",
        _details(schema),
    )


def _details(schema: Schema) -> dict[str, Any]:
    return {"revision": schema.revision, "needed": NEEDED, "oldest": schema.oldest}
