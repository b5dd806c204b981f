"""How long it takes to begin: import, a worker that is ready, a new client's first envelope."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.clients import clients
from benchmarks.figures import Bars, Report, Table, percentile
from benchmarks.sides import Side, Worker, ours, stock_celery, temporary_place

MODULES = {"ours": "llmchatlinker.client", "stock": "benchmarks.stock"}


def run(bench: Bench) -> Report:
    """See the module's docstring. The sides take turns."""
    rounds = 3 if bench.quick else 10
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"start-{name}"))
            for name in ("ours", "stock")
        ]
        sides = [ours(places[0]), stock_celery(places[1])]
        imports: list[list[float]] = [[] for _ in sides]
        ready: list[list[float]] = [[] for _ in sides]
        first: list[list[float]] = [[] for _ in sides]
        for number in range(rounds):
            bench.step(f"start-up: round {number + 1} of {rounds}")
            for index, side in enumerate(sides):
                imports[index].append(_import(bench, side))
                worker = Worker(side, bench.directory)
                try:
                    ready[index].append(worker.start())
                    first[index].append(_first(bench, side))
                finally:
                    worker.stop()
    table = Table("Starting", tuple(side.name for side in sides))
    table.add_percentiles("a process that imports the client", imports)
    table.add_percentiles("a worker until it is ready", ready)
    table.add_percentiles("a new client process until its first envelope", first)
    report = Report([table], raw={"import": imports, "ready": ready, "first": first})
    for title, samples in (
        ("import of the client, p50", imports),
        ("worker ready, p50", ready),
        ("first envelope of a new client process, p50", first),
    ):
        values = tuple(
            (side.name, percentile(sample, 0.5) * 1000)
            for side, sample in zip(sides, samples, strict=True)
        )
        report.plots.append(Bars(title, "ms", values))
    return report


def _import(bench: Bench, side: Side) -> float:
    """Seconds of a whole Python process that imports what a client imports, and ends."""
    command = [sys.executable, "-c", f"import {MODULES[side.kind]}"]
    began = time.monotonic()
    subprocess.run(command, env=side.environment(), cwd=bench.directory, check=True)
    return time.monotonic() - began


def _first(bench: Bench, side: Side) -> float:
    """Seconds from a client process's start to its first envelope."""
    began = time.monotonic()
    with clients(side, bench.directory) as (client,):
        client.ask("latency", count=1, type="USER_LIST")
        return time.monotonic() - began
