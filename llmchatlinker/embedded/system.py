"""The embedded system: PostgreSQL, two workers and a model server as children of one process."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

from llmchatlinker import health
from llmchatlinker.db.migrate import migrate
from llmchatlinker.embedded import broker
from llmchatlinker.embedded.model import LocalModel, fetch_model, find_model
from llmchatlinker.embedded.paths import PRIVATE, data_dir, make_dir
from llmchatlinker.embedded.postgres import EmbeddedPostgres
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.runtime import configure
from llmchatlinker.secrets import generate_key
from llmchatlinker.settings import PREFIX, Settings
from llmchatlinker.topology import GENERATE, QUEUE_NAMES

#: Where chats live between two runs, and what every run of the quickstart makes anew.
LASTING = "llmchatlinker"
QUICKSTART = "quickstart"

WORKER_READY_SECONDS = 60.0
#: Seconds that stages and calls get to finish in when workers stop. Handing back takes less.
GRACE = 10.0
#: Threads; connections to PostgreSQL are bounded by the pools, not by these.
CONCURRENCY = 8
POOL = 6

Report = Callable[[str], None]


class EmbeddedSystem:
    """Starts and stops it all. ``report`` is told each step in words, before it is done."""

    def __init__(self, report: Report, directory: Path | None = None) -> None:
        self.directory = data_dir() if directory is None else directory
        self._report = report
        self.postgres = EmbeddedPostgres(self.directory / "postgres")
        self.model: LocalModel | None = None
        self._workers: list[ManagedProcess] = []
        self.settings: Settings | None = None

    def start(self) -> None:
        """Start PostgreSQL. Raises StartFailed."""
        self._report("starting PostgreSQL")
        make_dir(self.directory / "run", PRIVATE)
        self.postgres.start()

    def start_model(self, fetch: Callable[[Report], object] = fetch_model) -> LocalModel:
        """Start the local model, after having it fetched if need be. Raises StartFailed."""
        if find_model() is None:
            fetch(self._report)
        self._report("loading the local model")
        self.model = LocalModel(self.directory / "model")
        self.model.start()
        return self.model

    def use(self, database: str, *, afresh: bool = False) -> Settings:
        """Run the workers on this database, made anew or kept; returns what clients need."""
        self.stop_workers()
        self._report(f"preparing the database {database!r}")
        if afresh:
            self.postgres.drop_database(database)
        self.postgres.ensure_database(database)
        url = self.postgres.url(database)
        self.settings = Settings(
            database_url=url,
            broker_url=broker.broker_url(url),
            secret_keys=self._secret_key(),
            database_pool_size=POOL,
            broker_pool_size=POOL,
            concurrency=CONCURRENCY,
            sweep_interval=2.0,
        )
        configure(self.settings)
        migrate()
        broker.prepare(self.settings)
        self._report("starting two workers")
        rest = [name for name in QUEUE_NAMES if name != GENERATE]
        self._workers = [self._worker("llm", [GENERATE]), self._worker("rest", rest)]
        for worker in self._workers:
            worker.start()
        for worker in self._workers:
            self._wait_for(worker)
        return self.settings

    def environment(self) -> dict[str, str]:
        """The settings that another program needs to be a client of this system."""
        assert self.settings is not None
        return as_environment(self.settings, ("database_url", "broker_url", "secret_keys"))

    def restart_dead_workers(self) -> list[str]:
        """Start again what has died; returns the names."""
        dead = [worker for worker in self._workers if not worker.alive]
        for worker in dead:
            worker.start()
        return [worker.name for worker in dead]

    def stop_workers(self, grace: float = GRACE) -> None:
        """Let them finish what they are at for ``grace`` seconds; then they hand back the rest."""
        if self._workers:
            with ThreadPoolExecutor(len(self._workers)) as pool:
                list(pool.map(lambda worker: worker.stop(grace), self._workers))
        self._workers = []

    def hurry(self) -> None:
        """Of workers that are being stopped: let them hand back at once. For a signal's handler."""
        for worker in self._workers:
            worker.send(signal.SIGQUIT)

    def stop(self) -> None:
        """Stop everything, in the order in which it is needed."""
        self.stop_workers()
        if self.model is not None:
            self.model.stop()
        if self.settings is not None:
            configure(self.settings)  # lets go of this process's own connections
        self.postgres.stop()

    def _worker(self, name: str, queues: Iterable[str]) -> ManagedProcess:
        assert self.settings is not None
        heartbeat = self._heartbeat(name)
        heartbeat.unlink(missing_ok=True)
        settings = as_environment(self.settings, [item.name for item in fields(Settings)])
        environment = {k: v for k, v in os.environ.items() if not k.startswith((PREFIX, "CELERY_"))}
        environment |= settings | {PREFIX + "HEARTBEAT_FILE": str(heartbeat)}
        argv = [sys.executable, "-m", "celery", "-A", "llmchatlinker", "worker"]
        argv += ["-Q", ",".join(queues), "-n", f"{name}@%h", "-l", "INFO"]
        return ManagedProcess(
            f"Worker {name}",
            argv,
            environment,
            self.directory / "run" / f"worker-{name}.log",
            # Not where the user is: `python -m` would look there first for our package.
            cwd=self.directory / "run",
            # The second one: hand back at once (``stopping.py``).
            stop_signals=(signal.SIGTERM, signal.SIGQUIT),
        )

    def _heartbeat(self, name: str) -> Path:
        return self.directory / "run" / f"worker-{name}.alive"

    def _wait_for(self, worker: ManagedProcess) -> None:
        heartbeat = self._heartbeat(worker.name.removeprefix("Worker "))
        wait_until(lambda: health.is_alive(heartbeat), WORKER_READY_SECONDS, worker)

    def _secret_key(self) -> str:
        """The key for API keys at rest; made once, and kept with the data that it opens."""
        path = self.directory / "run" / "secret.key"
        if not path.exists():
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(generate_key())
        return path.read_text().strip()


def as_environment(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Some settings as environment variables."""
    values = {name: getattr(settings, name) for name in names}
    return {PREFIX + name.upper(): str(value) for name, value in values.items() if value != ""}


# --- how `llmchatlinker env` finds what `llmchatlinker up` has started ---------------------------


def announce(environment: dict[str, str], directory: Path) -> Path:
    """Leave the settings of a running system where `llmchatlinker env` looks."""
    path = directory / "run" / "environment.json"
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump({"pid": os.getpid(), "since": time.time(), "environment": environment}, file)
    return path


def announced(directory: Path) -> dict[str, str] | None:
    """The settings of the system that runs in this directory, or None when none does."""
    try:
        document = json.loads((directory / "run" / "environment.json").read_text())
        os.kill(document["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    environment: dict[str, str] = document["environment"]
    return environment
