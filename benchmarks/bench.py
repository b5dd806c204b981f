"""What every scenario gets: the servers, the size of the run, and a way to say how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.clients import Client, clients
from benchmarks.figures import Report, Table
from benchmarks.servers import ConnectionSampler, Servers
from benchmarks.sides import CONCURRENCY, Side, Worker, workers


@dataclass
class Bench:
    """``quick``: fewer instructions, for a look rather than for figures."""

    servers: Servers
    directory: Path
    quick: bool
    console: Console
    began: float = field(default_factory=time.monotonic)

    def step(self, text: str) -> None:
        """Say what is being done."""
        self.console.print(f"[dim]{time.monotonic() - self.began:7.1f} s[/]  {text}")


Scenario = Callable[[Bench], Report]


@dataclass
class Running:
    """A side with its workers and clients up, and what they have used while the meter ran."""

    side: Side
    workers: list[Worker]
    clients: list[Client]
    servers: Servers
    sampler: ConnectionSampler
    instructions: int = 0
    worker_cpu: float = 0.0
    client_cpu: float = 0.0
    server_cpu: dict[str, float] = field(default_factory=dict)
    _before: tuple[float, float, dict[str, float]] | None = None

    def start_meter(self) -> None:
        """From here on CPU time counts."""
        self._before = self._used()

    def stop_meter(self, instructions: int) -> None:
        """Up to here, for that many instructions."""
        assert self._before is not None
        before, after = self._before, self._used()
        self.instructions += instructions
        self.worker_cpu += after[0] - before[0]
        self.client_cpu += after[1] - before[1]
        for name, value in after[2].items():
            used = value - before[2][name]
            self.server_cpu[name] = self.server_cpu.get(name, 0.0) + used

    def add_worker(self, worker: Worker) -> None:
        """One that was started while the meter ran: its start does not count."""
        self.workers.append(worker)
        self.worker_cpu -= worker.cpu()

    def meter_of_its_own(self) -> Running:
        """The same processes, whose use is counted apart from now on."""
        return Running(self.side, self.workers, self.clients, self.servers, self.sampler)

    def _used(self) -> tuple[float, float, dict[str, float]]:
        return (
            sum(worker.cpu() for worker in self.workers),
            sum(client.cpu() for client in self.clients),
            self.servers.cpu(),
        )

    def per_thousand(self, seconds: float) -> float:
        """CPU seconds per 1000 of the instructions that were metered."""
        return seconds * 1000 / self.instructions

    def worker_memory(self) -> float:
        """Resident memory of all workers, in MB."""
        return sum(worker.resident() for worker in self.workers)

    def client_memory(self) -> float:
        """Resident memory of the first client, in MB."""
        return self.clients[0].resident()


def running(stack: ExitStack, bench: Bench, side: Side, client_count: int = 1) -> Running:
    """A side's clients, without workers yet; the stack ends them."""
    sampler = stack.enter_context(ConnectionSampler(side.place))
    callers = stack.enter_context(clients(side, bench.directory, client_count))
    return Running(side, [], callers, bench.servers, sampler)


def run_side(
    stack: ExitStack,
    bench: Bench,
    side: Side,
    *,
    worker_count: int = 1,
    client_count: int = 1,
    concurrency: int = CONCURRENCY,
) -> Running:
    """Start a side's workers and clients; the stack ends them."""
    bench.step(f"starting {side.name}: {worker_count} worker(s), {client_count} client(s)")
    up = stack.enter_context(workers(side, bench.directory, worker_count, concurrency=concurrency))
    found = running(stack, bench, side, client_count)
    found.workers += up
    return found


# --- rows that tables of different scenarios share ------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """What a side has used. A table's rows are made of it, also once its processes have ended."""

    worker_cpu: float
    client_cpu: float
    rabbitmq_cpu: float
    postgresql_cpu: float
    worker_memory: float
    client_memory: float
    connections: int


def costs_of(running: Running) -> Costs:
    """CPU in seconds per 1000 instructions, memory in MB."""
    return Costs(
        worker_cpu=running.per_thousand(running.worker_cpu),
        client_cpu=running.per_thousand(running.client_cpu),
        rabbitmq_cpu=running.per_thousand(running.server_cpu.get("rabbitmq", 0.0)),
        postgresql_cpu=running.per_thousand(running.server_cpu.get("postgresql", 0.0)),
        worker_memory=running.worker_memory(),
        client_memory=running.client_memory(),
        connections=running.sampler.most,
    )


#: Rows that are looked up by name; llmchatlinker/sizing.py does so, too.
CPU_OF_WORKERS = "CPU of the workers per 1000"
CPU_OF_CLIENTS = "CPU of the clients per 1000"
CPU_OF_RABBITMQ = "CPU of RabbitMQ per 1000"
CPU_OF_POSTGRESQL = "CPU of PostgreSQL per 1000"
MEMORY_OF_WORKERS = "memory of the workers"
CONNECTIONS = "PostgreSQL connections, most"

_ROWS = (
    (CPU_OF_WORKERS, "s", "worker_cpu"),
    (CPU_OF_CLIENTS, "s", "client_cpu"),
    (CPU_OF_RABBITMQ, "s", "rabbitmq_cpu"),
    (CPU_OF_POSTGRESQL, "s", "postgresql_cpu"),
    (MEMORY_OF_WORKERS, "MB", "worker_memory"),
    ("memory of a client", "MB", "client_memory"),
    (CONNECTIONS, "", "connections"),
)


def add_costs(table: Table, sides: Sequence[Costs | None], *, growth: bool = False) -> None:
    """Rows for CPU time, memory and connections. ``growth``: the last beside the first, too."""
    for name, unit, key in _ROWS:
        values = [None if costs is None else getattr(costs, key) for costs in sides]
        table.add(name, unit, with_growth(values) if growth else values)


def with_growth(values: Sequence[float | None]) -> list[float | None]:
    """``values`` and how many times the first of them the last one is."""
    first, last = values[0], values[-1]
    return [*values, last / first if first and last is not None else None]


def warm_up(runnings: Iterable[Running], count: int = 20) -> None:
    """Some instructions that don't count: connections are opened and modules imported in them."""
    for running in runnings:
        for client in running.clients:
            client.send("burst", count=max(3, count // len(running.clients)), type="USER_LIST")
        for client in running.clients:
            client.receive()


def share(total: int, parts: int) -> Sequence[int]:
    """``total`` in ``parts`` whole numbers that are as equal as can be."""
    return [total // parts + (number < total % parts) for number in range(parts)]
