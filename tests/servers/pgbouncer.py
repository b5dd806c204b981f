"""A real PgBouncer of the tests' own before a PostgreSQL, in transaction mode, on the loopback only.

Each transaction may get another connection to PostgreSQL than the one before it, which is what a
client must be able to stand. Up in a tenth of a second.

Facts from: https://www.pgbouncer.org/config.html and https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit, urlunsplit

from tests.servers import HOST, end_with_helpers, free_ports, listens, log_tail, start_child
from tests.servers.install import PGBOUNCER, System, advice, find_pgbouncer

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0
#: Whom it runs as where the tests are root's, since PgBouncer refuses root.
NOBODY = "nobody"


class PgBouncerError(Exception):
    """A private PgBouncer could not be started; the message says why."""


class PrivatePgBouncer:
    """Stands before the server of ``database_url``, for each of its databases; a context manager.

    ``pool_size``: connections to PostgreSQL per database, at most. ``settings`` are further lines of
    ``[pgbouncer]``.
    """

    def __init__(self, database_url: str, pool_size: int = 4, **settings: str) -> None:
        self._target = urlsplit(database_url)
        self._settings = {"default_pool_size": str(pool_size)} | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._port = 0

    def url(self, database_url: str) -> str:
        """The URL of one of the server's databases, by way of this PgBouncer."""
        parts = urlsplit(database_url)
        user, separator, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{separator}{HOST}:{self._port}", query=""))

    def start(self) -> None:
        """Start it; return when it listens. Raises PgBouncerError with the end of its log."""
        program = find_pgbouncer()
        if program is None:
            raise PgBouncerError(advice(System.here(), PGBOUNCER))
        self._directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-pgbouncer-"))
        try:
            (self._port,) = free_ports(1)
            self._write_files(self._directory)
            command = [str(program), str(self._directory / "pgbouncer.ini")]
            if os.geteuid() == 0:
                command[1:1] = ["-u", NOBODY]
                for path in (self._directory, *self._directory.iterdir()):
                    shutil.chown(path, NOBODY)
            log = self._directory / "log"
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            self._process = start_child(command, environment, self._directory, log)
            deadline = time.monotonic() + START_TIMEOUT
            while not listens(self._process, self._port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise PgBouncerError(f"PgBouncer did not start. Its log:\n{log_tail([log])}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it; remove its directory. May be repeated."""
        if self._process is not None:
            end_with_helpers(self._process, signal.SIGTERM, STOP_TIMEOUT)
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory)
            self._directory = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _write_files(self, directory: Path) -> None:
        user = unquote(self._target.username or "postgres")
        password = unquote(self._target.password or "")
        lines = {
            "listen_addr": HOST,
            "listen_port": str(self._port),
            "unix_socket_dir": "",
            "pool_mode": "transaction",
            "max_client_conn": "500",
            "auth_type": "scram-sha-256",
            "auth_file": str(directory / "users"),
        } | self._settings
        host, port = self._target.hostname or HOST, self._target.port or 5432
        text = f"[databases]\n* = host={host} port={port}\n[pgbouncer]\n"
        text += "".join(f"{key} = {value}\n" for key, value in lines.items())
        for name, content in (
            ("pgbouncer.ini", text),
            ("users", f'"{_quoted(user)}" "{_quoted(password)}"\n'),
        ):
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(content)


def _quoted(text: str) -> str:
    return text.replace('"', '""')
