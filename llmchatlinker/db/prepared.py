"""Statements that PostgreSQL parses and plans once per connection, and not once per instruction.

psycopg2 knows no prepared statements, PostgreSQL's SQL does: ``PREPARE`` and ``EXECUTE``
(https://www.postgresql.org/docs/current/sql-prepare.html). The statement that makes an id final takes
a sixth of the server's CPU time this way.

Behind a pooler that gives each transaction another connection to the server (PgBouncer in transaction
mode) the ``EXECUTE`` may reach one where nothing was prepared. There statements run as they are. A
connection tells by itself that it is a pooler's: the process that its key for cancelling names, which
the pooler made up, is not the one that answers.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from psycopg2 import errors

#: Key of a pooled connection's notes: what is prepared on it, as ``Known``; None: nothing is to be.
NOTES = "llmchatlinker.prepared"
#: Seconds for which a connection's first plans are kept, and for which later ones are at most.
FIRST_PLANS, LAST_PLANS = 1.0, 600.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement by its name. ``prepare`` is plain SQL, ``run`` takes psycopg2's named values, and so
    does ``sql``, which is the statement itself.
    """

    name: str
    sql: str
    prepare: str
    run: str

    def execute(
        self, cursor: Any, values: Mapping[str, Any], notes: MutableMapping[str, Any]
    ) -> None:
        """Run it outside a transaction, preparing it on this connection where that is still due."""
        try:
            cursor.execute(self.ready(cursor, notes), values)
        except errors.InvalidSqlStatementName:  # somebody said DEALLOCATE or DISCARD here
            notes[NOTES].names.discard(self.name)
            cursor.execute(self.sql, values)

    def ready(self, cursor: Any, notes: MutableMapping[str, Any]) -> str:
        """What runs it on this connection, where it is prepared now unless nothing is to be."""
        if NOTES not in notes:
            notes[NOTES] = _known(cursor)
        known: Known | None = notes[NOTES]
        if known is None:
            return self.sql
        known.plan_anew(cursor)
        if self.name not in known.names:
            self._prepare(cursor)
            known.names.add(self.name)
        return self.run

    def _prepare(self, cursor: Any) -> None:
        # A name stands for one text only, whoever has prepared it.
        with suppress(errors.DuplicatePreparedStatement):
            cursor.execute(self.prepare)


class Known:
    """What is prepared on a connection, and when it is to be planned anew.

    All of it goes by keys, whatever the values are, so PostgreSQL is told to plan it once; else it plans
    some of it for each instruction, in the hope of a better plan for just these values
    (https://www.postgresql.org/docs/current/sql-prepare.html, "Notes"). But the plan for a table of ten
    rows reads all of them, and is kept while the table grows, until autovacuum has counted its rows. So
    plans are made anew, after times that double.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._pause = FIRST_PLANS
        self._until = time.monotonic() + FIRST_PLANS

    def plan_anew(self, cursor: Any) -> None:
        """If it is time."""
        now = time.monotonic()
        if now > self._until:
            cursor.execute("DISCARD PLANS")
            self._pause = min(2 * self._pause, LAST_PLANS)
            self._until = now + self._pause


def _known(cursor: Any) -> Known | None:
    cursor.execute("SELECT pg_backend_pid()")
    answering: int = cursor.fetchone()[0]
    named: int = cursor.connection.get_backend_pid()
    if answering != named:
        return None
    cursor.execute("SET plan_cache_mode = force_generic_plan")
    return Known()


@lru_cache(maxsize=256)
def prepared(sql: str) -> Prepared:
    """``sql``, with psycopg2's ``%(name)s``, as a statement to prepare."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)s", number, sql).replace("%%", "%")
    name = "llmchatlinker_" + hashlib.blake2s(sql.encode("utf-8"), digest_size=8).hexdigest()
    values = ", ".join(f"%({item})s" for item in names)
    run = f"EXECUTE {name} ({values})" if names else f"EXECUTE {name}"
    return Prepared(name, sql, f"PREPARE {name} AS {text}", run)
