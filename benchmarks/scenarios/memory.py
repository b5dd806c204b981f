"""Resident memory of one worker process over 100 000 instructions: flat after the first tenth."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.bench import Bench, run_side, share, warm_up
from benchmarks.figures import Lines, Report, Table
from benchmarks.sides import ours, temporary_place

CLIENTS = 4
BATCH = 500
#: Growth from the first tenth to the end that still counts as flat. An allocator's noise is some MB.
ALLOWED_GROWTH = 0.10


def run(bench: Bench) -> Report:
    """See the module's docstring. The clients' memory is sampled, too."""
    total = 5_000 if bench.quick else 100_000
    with ExitStack() as stack:
        place = stack.enter_context(temporary_place(bench.servers, "memory"))
        running = run_side(stack, bench, ours(place), client_count=CLIENTS)
        warm_up([running])
        worker_line: list[tuple[float, float]] = []
        client_line: list[tuple[float, float]] = []
        failed = done = 0
        began = time.monotonic()
        while done < total:
            worker_line.append((done, running.worker_memory()))
            client_line.append((done, running.client_memory()))
            for client, part in zip(running.clients, share(BATCH, CLIENTS), strict=True):
                client.send("burst", count=part, type="USER_LIST")
            for client in running.clients:
                failed += sum(client.receive()["failures"].values())
            done += BATCH
            if done % (total // 10) == 0:
                bench.step(f"memory: {done} of {total}, worker {worker_line[-1][1]:.0f} MB")
        seconds = time.monotonic() - began
        worker_line.append((done, running.worker_memory()))
        client_line.append((done, running.client_memory()))
    early = _at(worker_line, total // 10)
    late = worker_line[-1][1]
    table = Table(f"{total} instructions, one worker", ("ours",), ratios=False)
    table.add("worker at the start", "MB", [worker_line[0][1]], "plain")
    table.add(f"worker after {total // 10}", "MB", [early], "plain")
    table.add(f"worker after {total}", "MB", [late], "plain")
    table.add("growth since the first tenth", "%", [100 * (late / early - 1)], "plain")
    table.add("client at the start", "MB", [client_line[0][1]], "plain")
    table.add("client at the end", "MB", [client_line[-1][1]], "plain")
    table.add("full cycles per second", "/s", [done / seconds], "plain")
    report = Report([table], raw={"worker": worker_line, "client": client_line})
    lines = {"worker": worker_line, "a client": client_line}
    report.plots = [Lines("resident memory", "instructions", "MB", lines)]
    if failed:
        report.failures.append(f"{failed} instructions failed")
    if late > early * (1 + ALLOWED_GROWTH):
        report.failures.append(f"the worker grew from {early:.0f} to {late:.0f} MB")
    return report


def _at(line: list[tuple[float, float]], instructions: float) -> float:
    return next(memory for done, memory in line if done >= instructions)
