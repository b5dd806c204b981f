"""A real PgBouncer of the tests' own before a PostgreSQL, in transaction mode.

Each transaction may get another connection to PostgreSQL than the one before it, which is what a
client must be able to stand.

Facts from: https://www.pgbouncer.org/config.html and https://www.pgbouncer.org/features.html
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from tests.servers import HOST, free_ports
from tests.servers.install import PGBOUNCER, System, advice, find_pgbouncer
from tests.servers.private import NOBODY, PrivateServer, StartError


class PrivatePgBouncer(PrivateServer):
    """Stands before the server of ``database_url``, for each of its databases.

    ``pool_size``: connections to PostgreSQL per database, at most. ``settings`` are further lines of
    ``[pgbouncer]``.
    """

    def __init__(self, database_url: str, pool_size: int = 4, **settings: str) -> None:
        super().__init__("PgBouncer")
        self._target = urlsplit(database_url)
        self._settings = {"default_pool_size": str(pool_size)} | settings

    def url(self, database_url: str) -> str:
        """The URL of one of the server's databases, by way of this PgBouncer."""
        parts = urlsplit(database_url)
        user, separator, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{separator}{HOST}:{self._port}", query=""))

    def _command(self, directory: Path) -> Sequence[str | Path]:
        program = find_pgbouncer()
        if program is None:
            raise StartError(advice(System.here(), PGBOUNCER))
        (self._port,) = free_ports(1)
        self._write_files(directory)
        # It refuses to run as root.
        user = ["-u", NOBODY] if os.geteuid() == 0 else []
        return [program, *user, directory / "pgbouncer.ini"]

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
