"""Client processes, seen from the process that measures."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.processes import cpu_seconds, resident_megabytes
from benchmarks.sides import Side

PATIENCE = 900.0  # seconds for one order; throughput of the slowest side takes a few minutes
STOP_SECONDS = 5.0


class ClientFailed(Exception):
    """A client process ended, or did not answer in time; the message has the end of its log."""


class Client:
    """A ``benchmarks/client.py`` of one side, or another ``module`` that reads and writes lines."""

    def __init__(self, side: Side, directory: Path, module: str = "benchmarks.client") -> None:
        number = len(list(directory.glob("client-*.log")))
        self._log = directory / f"client-{number}.log"
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, side.kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=side.environment(),
                cwd=directory,
                text=True,
                start_new_session=True,  # Ctrl-C is for the process that measures
            )
        self._reader = threading.Thread(target=self._read, name="client's answers", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put(None)

    @property
    def pid(self) -> int:
        """Its pid."""
        return self._process.pid

    def send(self, do: str, **order: Any) -> None:
        """Give an order; ``receive`` waits for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do} | order) + "\n")
        self._process.stdin.flush()

    def receive(self, timeout: float = PATIENCE) -> dict[str, Any]:
        """The next answer."""
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise ClientFailed(f"A client did not answer within {timeout:.0f} s.") from None
        if line is None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])
            raise ClientFailed(f"A client ended. Its log:\n{tail}")
        document: dict[str, Any] = json.loads(line)
        return document

    def ask(self, do: str, **order: Any) -> dict[str, Any]:
        """Give an order and wait for the answer."""
        self.send(do, **order)
        return self.receive()

    def resident(self) -> float:
        """Resident memory in MB."""
        return resident_megabytes(self.pid)

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid)

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End it: its input ends, and after ``patience`` seconds the process is killed."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended
            self._process.stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


@contextmanager
def clients(side: Side, directory: Path, count: int = 1) -> Iterator[list[Client]]:
    """Client processes that have imported what they need, and are ended afterwards."""
    started: list[Client] = []
    patience = STOP_SECONDS
    try:
        started.extend(Client(side, directory) for _ in range(count))
        for client in started:
            client.receive()
        yield started
    except BaseException:
        patience = 0.0  # in the midst of something, for which nobody waits any longer
        raise
    finally:
        for client in started:
            client.stop(patience)
