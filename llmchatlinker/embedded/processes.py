"""Child processes that are started, watched and stopped by their pid, and die with their parent.

A child runs in a session of its own: Ctrl-C in the terminal reaches the parent only, which then
stops its children in the order that suits them. On Linux the kernel ends a child whose parent was
killed (launch.py says how); on macOS there is no such thing, and a killed parent leaves its
children.
"""

from __future__ import annotations

import os
import pwd
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from llmchatlinker.errors import StartFailed

LAUNCHER = Path(__file__).with_name("launch.py")
LOG_BYTES = 8_000_000
TAIL_BYTES = 64_000
POLL_SECONDS = 0.02


class ManagedProcess:
    """One child process.

    ``env`` is the child's whole environment (None: the parent's). Output is appended to
    ``log_path``, readable for its owner only, and put aside as ``<log>.1`` at a start when it is
    above 8 MB. ``user`` is the name of the user to run as, which takes root. ``stop_signals`` are
    what ``stop`` tries in turn before SIGKILL; ``orphan_signal`` is what the child gets when the
    parent dies.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None,
        log_path: Path,
        user: str | None = None,
        *,
        cwd: Path | None = None,
        stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,),
        orphan_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = None if env is None else dict(env)
        self.log_path = log_path
        self.user = user
        self.cwd = cwd
        self.stop_signals = tuple(stop_signals)
        self.orphan_signal = orphan_signal
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The child's pid, also after it ended; None before the first start."""
        return self._popen.pid if self._popen else None

    @property
    def alive(self) -> bool:
        """Whether the child has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def poll(self) -> int | None:
        """The exit code (negative: the signal that ended it); None: it runs or never did."""
        return self._popen.poll() if self._popen else None

    def start(self) -> None:
        """Start the child; nothing when it runs already.

        Raises ``StartFailed`` when it can't be started. A program that can't be run shows as a
        child that ended with 126 or 127, its reason in the log.
        """
        if self.alive:
            return
        uid, gid = _ids(self.user)
        try:
            log = self._open_log()
            try:
                self._popen = _spawn(lambda: self._fork(log, uid, gid))
            finally:
                os.close(log)
        except OSError as error:
            raise StartFailed(
                f"{self.name} can't be started: {error}.",
                {"remedy": f"See that {self.log_path.parent} is there and can be written to."},
            ) from error

    def wait(self, timeout: float) -> int | None:
        """As ``poll``, after waiting up to ``timeout`` seconds for the end."""
        if self._popen is None:
            return None
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: signal.Signals) -> None:
        """Send the child a signal, if it lives."""
        if self._popen is not None:
            # Popen asks the kernel for the exit code first, so a pid that was given to another is
            # never hit.
            self._popen.send_signal(number)

    def stop(self, grace: float = 10.0) -> None:
        """End the child: each stop signal gets ``grace`` seconds, then SIGKILL for its group."""
        if self._popen is None:
            return
        for number in self.stop_signals:
            self.send(number)
            if self.wait(grace) is not None:
                return
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of what the child wrote since its last start."""
        return "\n".join(self.log_text().splitlines()[-lines:])

    def log_text(self) -> str:
        """What the child wrote since its last start, or the last 64 kB of it."""
        try:
            with self.log_path.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self._log_start, end - TAIL_BYTES))
                return log.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def _open_log(self) -> int:
        # Never through a symbolic link: the folder may belong to a user with fewer rights than
        # ours.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES:
            self.log_path.replace(self.log_path.with_name(self.log_path.name + ".1"))
        log = os.open(self.log_path, flags, 0o600)
        self._log_start = os.fstat(log).st_size
        return log

    def _fork(self, log: int, uid: int, gid: int) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())]
        rights = [str(int(self.orphan_signal)), str(uid), str(gid)]
        return subprocess.Popen(
            [*launcher, *rights, "--", *self.argv],
            env=self.env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; another program may still be faster to take it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(
    predicate: Callable[[], bool], timeout: float, process: ManagedProcess, remedy: str = ""
) -> None:
    """Wait up to ``timeout`` seconds until ``predicate()`` holds for a ``process`` that lives.

    Raises ``StartFailed`` with the end of the process's log, at once when the process has ended.
    """
    deadline = time.monotonic() + timeout
    while process.alive:
        if predicate():
            return
        if time.monotonic() > deadline:
            raise start_failed(process, f"was not ready after {timeout:g} s", remedy)
        time.sleep(POLL_SECONDS)
    raise start_failed(process, f"ended with code {process.poll()}", remedy)


def start_failed(process: ManagedProcess, what: str, remedy: str = "") -> StartFailed:
    """The error that says ``what`` the process did, with the end of its log."""
    tail = process.log_tail() or "(it wrote nothing)"
    return StartFailed(
        f"{process.name} {what}. The end of its log, {process.log_path}:\n{tail}",
        {"remedy": remedy or "Mend what the log names, then start again."},
    )


def _ids(user: str | None) -> tuple[int, int]:
    if user is None:
        return -1, -1
    try:
        entry = pwd.getpwnam(user)
    except KeyError as error:
        raise StartFailed(
            f"There is no user {user} to run as.", {"remedy": f"Create it: useradd --system {user}"}
        ) from error
    return entry.pw_uid, entry.pw_gid


# --- the thread that forks ---------------------------------------------------------------------
# The kernel ends a child when the thread that forked it ends, not the process. So one thread forks
# all children, and lives as long as the process does. It is no executor's thread: those end before
# exit handlers run.


_Fork = Callable[[], "subprocess.Popen[bytes]"]
_Requests = queue.SimpleQueue[tuple[_Fork, "Future[subprocess.Popen[bytes]]"]]

_requests: _Requests | None = None
_requests_lock = threading.Lock()


def _serve(requests: _Requests) -> None:
    while True:
        fork, future = requests.get()
        try:
            future.set_result(fork())
        except BaseException as error:  # whatever it is belongs to the thread that asked
            future.set_exception(error)


def _spawn(fork: _Fork) -> subprocess.Popen[bytes]:
    global _requests
    future: Future[subprocess.Popen[bytes]] = Future()
    with _requests_lock:
        if _requests is None:
            _requests = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(_requests,), name="spawner", daemon=True).start()
        _requests.put((fork, future))
    return future.result()


def _forget_spawner() -> None:
    # A fork copies no threads: the copy starts a spawner of its own when it needs one.
    global _requests, _requests_lock
    _requests = None
    _requests_lock = threading.Lock()


os.register_at_fork(after_in_child=_forget_spawner)
