"""How long it takes to begin: import, a worker that is ready, a new client's first envelope."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field

from benchmarks.bench import Bench
from benchmarks.clients import clients
from benchmarks.figures import Bars, Report, Table, percentile
from benchmarks.servers import ConnectionSampler
from benchmarks.sides import Side, Worker, ours, stock_celery, temporary_place

MODULES = {"ours": "llmchatlinker.client", "stock": "benchmarks.stock"}


@dataclass
class Starts:
    """Of a side. Seconds, seconds of CPU, MB, all of a start each."""

    imports: list[float] = field(default_factory=list)
    ready: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    import_cpu: list[float] = field(default_factory=list)
    worker_cpu: list[float] = field(default_factory=list)
    client_cpu: list[float] = field(default_factory=list)
    rabbitmq_cpu: list[float] = field(default_factory=list)
    postgresql_cpu: list[float] = field(default_factory=list)
    worker_memory: list[float] = field(default_factory=list)
    client_memory: list[float] = field(default_factory=list)
    connections: int = 0


def run(bench: Bench) -> Report:
    """See the module's docstring. The sides take turns."""
    rounds = 3 if bench.quick else 6
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"start-{name}"))
            for name in ("ours", "stock")
        ]
        sides = [ours(places[0]), stock_celery(places[1])]
        samplers = [stack.enter_context(ConnectionSampler(place)) for place in places]
        found = [Starts() for _ in sides]
        for number in range(rounds):
            bench.step(f"start-up: round {number + 1} of {rounds}")
            for starts, side in zip(found, sides, strict=True):
                _start(bench, side, starts)
        for starts, sampler in zip(found, samplers, strict=True):
            starts.connections = sampler.most
    table = Table("Starting", tuple(side.name for side in sides))
    shown = (
        ("a process that imports the client", [s.imports for s in found]),
        ("a worker until it is ready", [s.ready for s in found]),
        ("a new client process until its first envelope", [s.first for s in found]),
    )
    for name, samples in shown:
        table.add_percentiles(name, samples)
    for name, unit, key in (
        ("CPU of an import", "s", "import_cpu"),
        ("CPU of a worker until it is ready", "s", "worker_cpu"),
        ("CPU of a client until its first envelope", "s", "client_cpu"),
        ("CPU of RabbitMQ for both", "s", "rabbitmq_cpu"),
        ("CPU of PostgreSQL for both", "s", "postgresql_cpu"),
        ("memory of a worker", "MB", "worker_memory"),
        ("memory of a client", "MB", "client_memory"),
    ):
        table.add(f"{name}, p50", unit, [percentile(getattr(s, key), 0.5) for s in found])
    table.add("PostgreSQL connections, most", "", [s.connections for s in found])
    report = Report([table], raw={s.name: asdict(f) for s, f in zip(sides, found, strict=True)})
    for name, samples in shown:
        medians = [percentile(sample, 0.5) * 1000 for sample in samples]
        bars = tuple((side.name, value) for side, value in zip(sides, medians, strict=True))
        report.plots.append(Bars(f"{name}, p50", "ms", bars))
    return report


def _start(bench: Bench, side: Side, starts: Starts) -> None:
    """One of each: an import, a worker, a client."""
    _import(bench, side, starts)
    before = bench.servers.cpu()
    worker = Worker(side, bench.directory)
    try:
        starts.ready.append(worker.start())
        starts.worker_cpu.append(worker.cpu())
        began = time.monotonic()
        with clients(side, bench.directory) as (client,):
            client.ask("latency", count=1, type="USER_LIST")
            starts.first.append(time.monotonic() - began)
            starts.client_cpu.append(client.cpu())
            starts.client_memory.append(client.resident())
        starts.worker_memory.append(worker.resident())
    finally:
        worker.stop()
    after = bench.servers.cpu()
    starts.rabbitmq_cpu.append(after["rabbitmq"] - before["rabbitmq"])
    starts.postgresql_cpu.append(after["postgresql"] - before["postgresql"])


def _import(bench: Bench, side: Side, starts: Starts) -> None:
    """A whole Python process that imports what a client imports, and ends."""
    command = [sys.executable, "-c", f"import {MODULES[side.kind]}"]
    began, before = time.monotonic(), _children_cpu()
    subprocess.run(command, env=side.environment(), cwd=bench.directory, check=True)
    starts.imports.append(time.monotonic() - began)
    starts.import_cpu.append(_children_cpu() - before)


def _children_cpu() -> float:
    """CPU seconds of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
