"""What every scenario gets: the servers, the size of the run, and a way to say how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.clients import Client, clients
from benchmarks.figures import Report
from benchmarks.servers import Servers
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
    """A side with its workers and clients up, and what they have used since ``start_meter``."""

    side: Side
    workers: list[Worker]
    clients: list[Client]
    servers: Servers
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
    callers = stack.enter_context(clients(side, bench.directory, client_count))
    return Running(side, up, callers, bench.servers)


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
