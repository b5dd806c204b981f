"""The two sides of a comparison: how each one's workers and clients are started."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

from benchmarks import stock
from benchmarks.processes import cpu_seconds, resident_megabytes
from benchmarks.servers import Place, Servers
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.secrets import generate_key
from llmchatlinker.settings import PREFIX, Settings

ROOT = Path(__file__).resolve().parent.parent
#: Slots of a worker process, for every side. Stock's worker opens a connection to PostgreSQL per
#: slot and more, so that many more would only measure PostgreSQL's connection limit.
CONCURRENCY = 8
START_SECONDS = 90.0
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Side:
    """``kind``: ``ours`` or ``stock``; ``pool``: Celery's name of the workers' pool."""

    name: str
    kind: str
    pool: str
    place: Place
    settings: Mapping[str, str] = field(default_factory=dict)

    def environment(self, **more: str) -> dict[str, str]:
        """What its workers and clients find in their environment."""
        basic = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
        }
        return basic | dict(self.settings) | more


def ours(place: Place, name: str = "ours", **changes: object) -> Side:
    """LLMChatLinker, with its default settings but for what ``changes`` names."""
    settings = Settings(
        database_url=place.database_url,
        broker_url=place.broker_url,
        secret_keys=generate_key(),
        concurrency=CONCURRENCY,
        user_concurrency=100_000,  # one user makes all the calls
        log_level="WARNING",
    )
    values = {item.name: getattr(settings, item.name) for item in fields(settings)} | changes
    named = {PREFIX + key.upper(): str(value) for key, value in values.items()}
    return Side(name, "ours", "threads", place, named)


def stock_celery(place: Place, pool: str = "threads", **more: str) -> Side:
    """Stock Celery, with the table that its own code needs."""
    place.sql(stock.TABLE)
    named = {stock.DATABASE_URL: place.database_url, stock.BROKER_URL: place.broker_url}
    return Side(f"stock ({pool})", "stock", pool, place, named | more)


class Worker:
    """A worker process. ``queues``: which ones it serves, all of them when empty.

    ``ready_at``: the moment at which it was, by the monotonic clock.
    """

    def __init__(
        self,
        side: Side,
        directory: Path,
        queues: tuple[str, ...] = (),
        concurrency: int = CONCURRENCY,
    ) -> None:
        folder = Path(tempfile.mkdtemp(prefix="worker-", dir=directory))
        self._ready = folder / "ready"
        self.ready_at = 0.0
        ready = {PREFIX + "HEARTBEAT_FILE": str(self._ready), stock.READY_FILE: str(self._ready)}
        module = "llmchatlinker" if side.kind == "ours" else "benchmarks.stock"
        command = [sys.executable, "-m", "celery", "-A", module, "worker", "--loglevel", "WARNING"]
        command += ["--pool", side.pool, "--concurrency", str(concurrency)]
        command += ["--hostname", f"{folder.name}@localhost"]
        command += ["--queues", ",".join(queues)] if queues else []
        self.process = ManagedProcess(
            f"worker of {side.name}",
            command,
            side.environment(**ready),
            folder / "log",
            cwd=folder,
            stop_signals=(signal.SIGTERM, signal.SIGQUIT),
        )

    def start(self) -> float:
        """Start it; return the seconds until it was ready."""
        began = time.monotonic()
        self.process.start()
        wait_until(self._ready.exists, START_SECONDS, self.process)
        self.ready_at = time.monotonic()
        return self.ready_at - began

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """Stop it, by its pid; each of its two signals and then SIGKILL after ``patience`` s."""
        self.process.stop(patience)

    @property
    def pid(self) -> int:
        """The pid of the worker's main process."""
        assert self.process.pid is not None
        return self.process.pid

    def cpu(self) -> float:
        """CPU seconds so far, its children's included."""
        return cpu_seconds(self.pid)

    def resident(self) -> float:
        """Resident memory in MB, its children's included."""
        return resident_megabytes(self.pid)


@contextmanager
def workers(
    side: Side,
    directory: Path,
    count: int = 1,
    queues: tuple[str, ...] = (),
    concurrency: int = CONCURRENCY,
) -> Iterator[list[Worker]]:
    """Worker processes that are ready, and stopped afterwards."""
    started: list[Worker] = []
    patience = STOP_SECONDS
    try:
        for _ in range(count):
            worker = Worker(side, directory, queues, concurrency)
            started.append(worker)
            worker.start()
        yield started
    except BaseException:
        patience = 0.5  # what it is still doing, nobody needs any longer
        raise
    finally:
        for worker in started:
            worker.stop(patience)


@contextmanager
def temporary_place(servers: Servers, name: str) -> Iterator[Place]:
    """A place that is removed afterwards."""
    place = servers.add_place(name)
    try:
        yield place
    finally:
        servers.remove_place(place)
