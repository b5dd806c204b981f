"""A real nginx of the tests' own, with the servers that a test gives it, on the loopback only.

Facts from: https://nginx.org/en/docs/ngx_core_module.html and ngx_http_core_module.html.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from tests.servers import end_with_helpers, listens, log_tail, start_child
from tests.servers.install import NGINX, System, advice, find_nginx

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0
#: Whom its workers run as where the tests are root's; the default is a user that not every system has.
NOBODY = "nobody"
#: Where it puts what is too large for its memory: by default into folders of the system's.
SPOOLS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class NginxError(Exception):
    """A private nginx could not be started; the message says why."""


class PrivateNginx:
    """Runs ``servers``, which are what stands in ``http { … }``; a context manager.

    It is up once it listens on ``port``, which must be one of theirs.
    """

    def __init__(self, servers: str, port: int) -> None:
        self._servers = servers
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None

    def start(self) -> None:
        """Start it; return when it listens. Raises NginxError with the end of its log."""
        program = find_nginx()
        if program is None:
            raise NginxError(advice(System.here(), NGINX))
        self._directory = directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-nginx-"))
        try:
            (directory / "nginx.conf").write_text(self._text(directory))
            if os.geteuid() == 0:
                shutil.chown(directory, NOBODY)
            log = directory / "log"
            command = [str(program), "-p", str(directory), "-c", "nginx.conf", "-e", str(log)]
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            self._process = start_child(command, environment, directory, log)
            deadline = time.monotonic() + START_TIMEOUT
            while not listens(self._process, self._port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise NginxError(f"nginx did not start. Its log:\n{log_tail([log])}")
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

    def _text(self, directory: Path) -> str:
        lines = ["daemon off;", f"pid {directory}/pid;", f"error_log {directory}/log;"]
        if os.geteuid() == 0:
            group = grp.getgrgid(pwd.getpwnam(NOBODY).pw_gid).gr_name
            lines.append(f"user {NOBODY} {group};")
        lines += ["events {}", "http {", "access_log off;"]
        lines += [f"{name}_temp_path {directory}/{name};" for name in SPOOLS]
        return "\n".join([*lines, self._servers, "}"]) + "\n"
