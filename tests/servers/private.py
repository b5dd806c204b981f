"""What the tests' own servers of one process have in common, and no other server's clients.

They run in a folder of their own, listen on the loopback, are up in a tenth of a second, and go with
their folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.servers import end_with_helpers, listens, log_tail, start_child

START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 10.0
#: Whom such a server runs as where the tests are root's.
NOBODY = "nobody"


class StartError(Exception):
    """A private server could not be started; the message says why."""


class PrivateServer:
    """A context manager. ``name``: the server's, for people.

    A subclass says how it is started, and on which ``_port`` it listens then.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._process: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._port = 0

    def _command(self, directory: Path) -> Sequence[str | Path]:
        """Write what it needs into its folder; return the command. StartError where it is not there."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it; return when it listens. Raises StartError with the end of its log."""
        prefix = f"llmchatlinker-{self._name.lower()}-"
        self._directory = directory = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            command = [str(part) for part in self._command(directory)]
            if os.geteuid() == 0:
                for path in (directory, *directory.iterdir()):
                    shutil.chown(path, NOBODY)
            log = directory / "log"
            environment = {"PATH": os.environ.get("PATH", os.defpath)}
            self._process = start_child(command, environment, directory, log)
            deadline = time.monotonic() + START_TIMEOUT
            while not listens(self._process, self._port):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise StartError(f"{self._name} did not start. Its log:\n{log_tail([log])}")
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
