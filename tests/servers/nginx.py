"""A real nginx of the tests' own, with the servers that a test gives it.

Facts from: https://nginx.org/en/docs/ngx_core_module.html and ngx_http_core_module.html.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from tests.servers.install import NGINX, System, advice, find_nginx
from tests.servers.private import NOBODY, PrivateServer, StartError

#: Where it puts what is too large for its memory: by default into folders of the system's.
SPOOLS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class PrivateNginx(PrivateServer):
    """Runs ``servers``, which are what stands in ``http { … }``.

    It is up once it listens on ``port``, which must be one of theirs.
    """

    def __init__(self, servers: str, port: int) -> None:
        super().__init__("nginx")
        self._servers = servers
        self._port = port

    def _command(self, directory: Path) -> Sequence[str | Path]:
        program = find_nginx()
        if program is None:
            raise StartError(advice(System.here(), NGINX))
        (directory / "nginx.conf").write_text(self._text(directory))
        return [program, "-p", directory, "-c", "nginx.conf", "-e", directory / "log"]

    def _text(self, directory: Path) -> str:
        lines = ["daemon off;", f"pid {directory}/pid;", f"error_log {directory}/log;"]
        if (
            os.geteuid() == 0
        ):  # its workers are nobody's; the default is a user that few systems have
            group = grp.getgrgid(pwd.getpwnam(NOBODY).pw_gid).gr_name
            lines.append(f"user {NOBODY} {group};")
        lines += ["events {}", "http {", "access_log off;"]
        lines += [f"{name}_temp_path {directory}/{name};" for name in SPOOLS]
        return "\n".join([*lines, self._servers, "}"]) + "\n"
