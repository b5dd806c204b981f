"""Ten million instructions and as many events: what purging costs, and whether the tables stay flat.

In a PostgreSQL of its own, without workers: the product's own functions are called. A tenth of the rows
is purged in the sweeper's batches; then come cycles of as many new instructions, written as workers
write them, and as many purged ones. ``plans.py`` says what each statement of the hot path and of the
sweeper costs before, during and after.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks.bench import Bench
from benchmarks.figures import Lines, Report, Table, percentile
from benchmarks.scenarios.plans import BIG, Plans, look
from llmchatlinker import retention
from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.sessions import use_database
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.settings import Settings, use_settings

ROWS, QUICK_ROWS = 10_000_000, 200_000
CYCLES = 5
#: Growth of a table over the cycles, after the first one, that is no longer flat.
ALLOWED_GROWTH = 0.10
#: Seconds that autovacuum gets.
PATIENCE = 900.0

SERVER = {
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "maintenance_work_mem": "256MB",
    "autovacuum_naptime": "15s",
}

_FILL = """
    INSERT INTO instructions (id, type, state, data, user_ids, chat_id, turn, submitted_at,
           deadline_at, published_at, decoded_at, executed_at, final_at, outcome)
    SELECT uuidv7(t - now()), 'LLM_RESPONSE_GENERATE', 'final',
           jsonb_build_object('user_id', u, 'chat_id', u, 'llm_id', 1,
                              'user_input', repeat('so on ', 30)),
           ARRAY[u], u, 'done', t, t, t, t, t, t,
           jsonb_build_object('status', 'success', 'message', 'Response generated.', 'data',
               jsonb_build_object('llm_response', jsonb_build_object('message_id', n, 'user_id', u,
                   'content', repeat('and so on ', 30))))
      FROM (SELECT n, CAST(1 + n %% 100000 AS integer) AS u,
                   now() - interval '6 days' * (1 - n / CAST(%(rows)s AS float8)) AS t
              FROM generate_series(CAST(%(first)s AS bigint), %(last)s) AS n) AS g
"""
_EVENTS = """
    INSERT INTO events (instruction_id, first, last, events, compacted, created_at)
    SELECT id, 60, 60, '[{"type": "response.completed"}]', true, final_at FROM instructions
     WHERE seq BETWEEN %(first)s AND %(last)s
"""
#: As a worker does it, but many at once: an insert and three updates.
_NEW = (
    """
    INSERT INTO instructions (id, type, data, user_ids, chat_id, turn, deadline_at)
    SELECT uuidv7(), type, data, user_ids, chat_id, 'queued', now() + interval '60 s'
      FROM (SELECT * FROM instructions ORDER BY seq DESC LIMIT %(count)s) AS pattern
     WHERE data <> '{}'
    """,
    "UPDATE instructions SET state = 'decoded', decoded_at = now(), published_at = now()"
    " WHERE state = 'submitted' AND final_at IS NULL",
    "UPDATE instructions SET state = 'executed', executed_at = now(), published_at = now(),"
    " turn = 'done', outcome = jsonb_build_object('status', 'success', 'said', repeat('on ', 100))"
    " WHERE state = 'decoded' AND final_at IS NULL",
    """
    WITH ended AS (
        UPDATE instructions SET state = 'final', final_at = now()
         WHERE state = 'executed' AND final_at IS NULL RETURNING id
    )
    INSERT INTO events (instruction_id, first, last, events, compacted)
    SELECT id, 60, 60, '[{"type": "response.completed"}]', true FROM ended
    """,
)
_SIZES = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_live_tup, n_dead_tup
      FROM pg_stat_user_tables WHERE relname IN ('instructions', 'events') ORDER BY relname DESC
"""
_AGE = """
    SELECT extract(epoch FROM clock_timestamp() - final_at) FROM instructions
     WHERE final_at IS NOT NULL ORDER BY seq OFFSET %(count)s LIMIT 1
"""
#: Tables that have more dead rows than autovacuum leaves alone.
_UNVACUUMED = """
    SELECT count(*) FROM pg_stat_user_tables
     WHERE relname IN ('instructions', 'events') AND n_dead_tup > 0.02 * n_live_tup + 1000
"""

Sizes = dict[str, tuple[int, ...]]


class Room:
    """The database of the scenario."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg2.connect(url.replace("+psycopg2", "", 1))
        self._connection.autocommit = True

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Run a statement; its rows."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def sizes(self) -> Sizes:
        """By table: bytes of the table and of its indexes, live and dead rows."""
        return {row[0]: tuple(map(int, row[1:])) for row in self.sql(_SIZES)}

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()


@contextmanager
def used(url: str) -> Iterator[Room]:
    """This process's database for as long as it is open."""
    use_settings(Settings(database_url=url, client_patience=600.0))
    use_database(None)
    room = Room(url)
    try:
        yield room
    finally:
        room.close()
        use_database(None)
        use_settings(None)


@contextmanager
def server() -> Iterator[str]:
    """A PostgreSQL with a database, gone afterwards; in TMPDIR, where there must be 30 GB."""
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-purge-"))
    directory.chmod(0o755)
    try:
        with EmbeddedPostgres(directory / "postgres", settings=SERVER) as postgres:
            postgres.ensure_database("purge")
            yield postgres.url("purge")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    rows = QUICK_ROWS if bench.quick else ROWS
    with server() as url, used(url) as room:
        migrate()
        bench.step(f"purge: {rows} instructions and events")
        fill(room, rows)
        return measure(bench, room, rows // 10, CYCLES)


def fill(room: Room, rows: int, step: int = 100_000) -> None:
    """Finished instructions of six days, with an event each."""
    room.sql("SET synchronous_commit = off")
    room.sql("INSERT INTO users (username) SELECT 'user-' || n FROM generate_series(1, 100000) n")
    for first in range(1, rows + 1, step):
        part = {"rows": rows, "first": first, "last": min(first + step - 1, rows)}
        room.sql(_FILL, **part)
        room.sql(_EVENTS, **part)
    room.sql("RESET synchronous_commit")
    room.sql("VACUUM ANALYZE")


def measure(bench: Bench, room: Room, count: int, cycles: int, again: int = 0) -> Report:
    """Purge ``count``, then ``cycles`` times ``again`` (or as many) new ones and as many purged."""
    report = Report()
    plans = {"before": look(room.url)}
    start = room.sizes()
    bench.step(f"purge: {count} rows in batches of {retention.BATCH}")
    beside = Beside(room.url)
    batches, seconds = purge(room, count)
    plans["during"] = beside.stop()
    purged = room.sizes()
    waited = vacuumed(room)
    after = room.sizes()
    plans["after"] = look(room.url)
    table = Table(f"purging {count} of {_live(start)}", ("ours",), ratios=False)
    table.add("all of it", "s", [seconds])
    table.add("a batch, p50", "ms", [percentile(batches, 0.5) * 1000])
    table.add("a batch, p99", "ms", [percentile(batches, 0.99) * 1000])
    table.add("until autovacuum was through", "s", [waited])
    for name in start:
        for label, sizes in (("before", start), ("purged", purged), ("vacuumed", after)):
            table.add(f"{name} {label}", "MB", [sizes[name][0] / 1e6], "plain")
            table.add(f"{name}' indexes {label}", "MB", [sizes[name][1] / 1e6], "plain")
            table.add(f"{name} {label}, dead", "rows", [sizes[name][3]], "plain")
    report.tables = [table, _of_plans(plans)]
    report.failures = [
        f"{name} reads the whole of {', '.join(plan.whole)} ({when})"
        for when, of in plans.items()
        for name, plan in of.items()
        if set(plan.whole) & set(start)  # the others are empty
    ]
    history = [after]
    for number in range(cycles):
        bench.step(f"purge: cycle {number + 1} of {cycles}")
        write(room, again or count)
        purge(room, again or count)
        vacuumed(room)
        history.append(room.sizes())
    lines = {
        f"{name}{what}": [(float(n), sizes[name][i] / 1e6) for n, sizes in enumerate(history)]
        for name in start
        for i, what in enumerate(("", ", indexes"))
    }
    report.plots = [Lines("size over cycles", "cycle", "MB", lines)]
    report.raw = {"batches": batches, "cycles": history, "again": again or count}
    for name, line in lines.items():
        # Indexes settle only once every row was replaced: rows are updated in bulk here, so most
        # updates leave an entry in each, which a worker's own updates do not.
        if (
            "indexes" not in name
            and len(line) > 2
            and line[-1][1] > line[1][1] * (1 + ALLOWED_GROWTH)
        ):
            report.failures.append(f"{name} grew from {line[1][1]:.0f} to {line[-1][1]:.0f} MB")
    return report


def write(room: Room, count: int, step: int = 10_000) -> None:
    """New instructions from submission to end."""
    for _ in range(0, count, step):
        for statement in _NEW:
            room.sql(statement, **({"count": step} if "%(count)s" in statement else {}))


def purge(room: Room, count: int) -> tuple[list[float], float]:
    """The oldest ``count``, as the sweeper does it; seconds of each batch, and of all."""
    age = float(room.sql(_AGE, count=count)[0][0])
    use_settings(Settings(database_url=room.url, instruction_retention=age, client_patience=600.0))
    batches: list[float] = []
    began = last = time.monotonic()

    def note(kind: str, gone: int) -> None:
        nonlocal last
        now = time.monotonic()
        batches.append(now - last)
        last = now

    retention.purge(seconds=float("inf"), report=note)
    return batches, time.monotonic() - began


def vacuumed(room: Room) -> float:
    """Seconds until autovacuum has been where it has to."""
    began = time.monotonic()
    while room.sql(_UNVACUUMED)[0][0] and time.monotonic() - began < PATIENCE:
        threading.Event().wait(1)
    return time.monotonic() - began


class Beside:
    """Looks at every statement's plan again and again while something else is done."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self._seen: Plans = {}
        self._thread = threading.Thread(target=self._run, name="plans", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            for name, plan in look(self._url).items():
                known = self._seen.get(name)
                if known is None or plan.milliseconds > known.milliseconds:
                    self._seen[name] = plan  # the dearest of all

    def stop(self) -> Plans:
        """What was seen."""
        self._stop.set()
        self._thread.join()
        return self._seen


def _live(sizes: Sizes) -> int:
    return sizes["instructions"][2]


def _of_plans(plans: dict[str, Plans]) -> Table:
    """Milliseconds and pages of each statement's plans."""
    table = Table(
        f"statements (whole tables: none of {', '.join(BIG)})",
        tuple(f"{when}, {what}" for when in plans for what in ("ms", "pages")),
        ratios=False,
    )
    for name in plans["before"]:
        values: list[float | None] = []
        for of in plans.values():
            plan = of.get(name)
            values += [None, None] if plan is None else [plan.milliseconds, plan.pages]
        table.add(name, "", values, "plain")
    return table
