"""Real servers for the tests: each test run starts its own, and leaves nothing behind.

Here is what any such server needs. Only the standard library is imported at the top, because
``python -m tests.servers.install`` runs before anything else is installed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

HOST = "127.0.0.1"

# Below every system's range for outgoing connections (Linux: from 32768): while a server is down
# for a restart, no client's own port can take its place, nor be connected to itself there.
_PORTS = range(15_000, 32_000)
#: Of several test processes (pytest-xdist names them gw0, gw1, …) each has every eighth one for itself:
#: a port that is free while its server is down must not be another process's choice.
_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw") or 0)
_MINE = _PORTS[_PROCESS % 8 :: 8]


def free_ports(count: int) -> list[int]:
    """``count`` different ports on which nothing listened a moment ago."""
    ports: set[int] = set()
    while len(ports) < count:
        port = secrets.choice(_MINE)  # not ``random``: tests seed that, and then all agree
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            ports.add(port)
    return list(ports)


def start_child(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a server in its directory, its output appended to the log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd=directory,
            start_new_session=True,  # Ctrl-C in the terminal is for the tests, not for it
        )


def listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether our child itself listens on the TCP port, and not somebody else."""
    import psutil  # see the module's docstring

    with contextlib.suppress(psutil.Error):  # it may just have ended
        entries = psutil.Process(process.pid).net_connections("tcp")
        return any(e.status == psutil.CONN_LISTEN and e.laddr.port == port for e in entries)
    return False


def log_tail(logs: Iterable[Path], lines: int = 60) -> str:
    """The last lines of each log."""
    parts = [log.read_text(errors="replace").splitlines()[-lines:] for log in logs]
    return "\n".join(line for part in parts for line in part)


def end_with_helpers(
    process: subprocess.Popen[bytes], how: signal.Signals, patience: float
) -> None:
    """Send ``how`` to our child, SIGKILL after ``patience`` seconds; wait for it and its children.

    The children are given 5 s to end by themselves when their parent's pipes close.
    """
    import psutil  # see the module's docstring

    def alive(helper: psutil.Process) -> bool:
        # One that ended and that nobody has reaped yet is not alive.
        with contextlib.suppress(psutil.NoSuchProcess):
            return helper.is_running() and helper.status() != psutil.STATUS_ZOMBIE
        return False

    if process.poll() is not None:
        return
    helpers: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        helpers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)  # a frozen process heeds SIGKILL alone
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 5
    while any(map(alive, helpers)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for helper in filter(alive, helpers):
        with contextlib.suppress(psutil.NoSuchProcess):
            helper.kill()
