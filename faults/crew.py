"""The workers of a scenario, and the supervisor that starts the dead ones anew, as systemd would."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.sides import CONCURRENCY, Side, Worker
from faults import failpoints

LOOK = 0.05  # seconds between two looks at who has died
START_SECONDS = 240.0  # a few are usual; a busy machine takes its time
STOP_SECONDS = 15.0


class CrewMember(Worker):
    """A worker with the failpoints in it. ``alive``: it has said so since it was last started."""

    def __init__(self, side: Side, directory: Path, include: str, concurrency: int) -> None:
        super().__init__(side, directory, concurrency=concurrency)
        self.process.argv += ["--include", include]

    @property
    def environment(self) -> dict[str, str]:
        """What its process is started with."""
        environment = self.process.env
        assert environment is not None
        return environment

    @property
    def name(self) -> str:
        """As workers and the ledger call it."""
        return f"{self.process.log_path.parent.name}@localhost"

    def start_again(self) -> None:
        """Start it, without waiting."""
        self._ready.unlink(missing_ok=True)
        self.process.start()

    @property
    def is_ready(self) -> bool:
        """Whether it runs and is connected."""
        return self.process.alive and self._ready.exists()


class Crew:
    """A context manager: workers that serve all queues. ``deaths``: how many ended, by exit code.

    ``first``: what the first of them has in its environment besides. ``spared``: the last so many get
    no signals and have no failpoints.
    """

    def __init__(
        self,
        side: Side,
        directory: Path,
        count: int,
        include: str,
        first: dict[str, str],
        spared: int = 0,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self.members = [CrewMember(side, directory, include, concurrency) for _ in range(count)]
        self.targets = self.members[: count - spared]
        self.spared = self.members[count - spared :]
        self.members[0].environment.update(first)
        for member in self.spared:
            del member.environment[failpoints.FOLDER]
        self.deaths: Counter[int] = Counter()
        self._over = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, name="supervisor")

    def __enter__(self) -> Self:
        for member in self.members:
            member.start_again()
        self._supervisor.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._supervisor.join()
        for member in self.members:
            with suppress(ProcessLookupError):
                member.process.stop(STOP_SECONDS)

    def wait_until_ready(self) -> None:
        """Return once all of them are; TimeoutError with the end of a log when one never is."""
        deadline = time.monotonic() + START_SECONDS
        for member in self.members:
            while not member.is_ready:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"A worker does not start:\n{member.process.log_tail()}")
                time.sleep(LOOK)

    def ready(self) -> list[int]:
        """The places of those that are up and not spared."""
        return [who for who, member in enumerate(self.targets) if member.is_ready]

    def send(self, number: signal.Signals, who: int) -> int | None:
        """A signal to a worker that is not spared, by its place; its pid, or None when it is dead, or
        only starting.
        """
        member = self.targets[who % len(self.targets)]
        if not member.is_ready:
            return None
        with suppress(ProcessLookupError):
            os.kill(member.pid, number)
            return member.pid
        return None

    def logs(self) -> dict[str, str]:
        """What each has written, by its name."""
        return {m.process.log_path.parent.name: m.process.log_text() for m in self.members}

    def _supervise(self) -> None:
        while not self._over.wait(LOOK):
            for member in self.members:
                code = member.process.poll()
                if code is not None:
                    self.deaths[code] += 1
                    member.start_again()


def arm(folder: Path, point: str) -> None:
    """Let the next worker that comes by die there."""
    assert point in failpoints.POINTS
    (folder / point).touch()


def disarm(folder: Path) -> Counter[str]:
    """Take back what nobody came by, and forget the rest; how often each point has struck."""
    struck: Counter[str] = Counter()
    for path in folder.iterdir():
        name, dot, _ = path.name.partition(".")
        if dot:
            struck[name] += 1
        path.unlink()
    return struck
