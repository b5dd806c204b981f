"""Resident memory of one worker process over 100 000 instructions: flat after the first tenth.

Each client process goes its own way, with one order more than the one it works on: nobody waits for the
slowest, and the worker always has something to do.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import ExitStack, suppress

from benchmarks.bench import Bench, Running, add_costs, costs_of, run_side, warm_up
from benchmarks.clients import Client
from benchmarks.figures import Lines, Report, Table
from benchmarks.sides import ours, temporary_place

CLIENTS = 4
#: Instructions of one order to one client.
BATCH = 250
#: Growth from the first tenth to the end that still counts as flat. An allocator's noise is some MB.
ALLOWED_GROWTH = 0.10

Line = list[tuple[float, float]]


def run(bench: Bench) -> Report:
    """See the module's docstring. The clients' memory is sampled, too."""
    total = 5_000 if bench.quick else 100_000
    with ExitStack() as stack:
        place = stack.enter_context(temporary_place(bench.servers, "memory"))
        running = run_side(stack, bench, ours(place), client_count=CLIENTS)
        warm_up([running])
        running.start_meter()
        began = time.monotonic()
        worker_line, client_line, failed = _work(bench, running, total)
        seconds = time.monotonic() - began
        running.stop_meter(total)
        costs = costs_of(running)
    early = _at(worker_line, total // 10)
    late = worker_line[-1][1]
    table = Table(f"{total} instructions, one worker", ("ours",), ratios=False)
    table.add("worker at the start", "MB", [worker_line[0][1]], "plain")
    table.add(f"worker after {total // 10}", "MB", [early], "plain")
    table.add(f"worker after {total}", "MB", [late], "plain")
    table.add("growth since the first tenth", "%", [100 * (late / early - 1)], "plain")
    table.add("client at the start", "MB", [client_line[0][1]], "plain")
    table.add("client at the end", "MB", [client_line[-1][1]], "plain")
    table.add("full cycles per second", "/s", [total / seconds], "plain")
    add_costs(table, [costs])
    report = Report([table], raw={"worker": worker_line, "client": client_line})
    lines = {"worker": worker_line, "a client": client_line}
    report.plots = [Lines("resident memory", "instructions", "MB", lines)]
    if failed:
        report.failures.append(f"{failed} instructions failed")
    if late > early * (1 + ALLOWED_GROWTH):
        report.failures.append(f"the worker grew from {early:.0f} to {late:.0f} MB")
    return report


def _work(bench: Bench, running: Running, total: int) -> tuple[Line, Line, int]:
    """The worker's and a client's memory by instructions that are done, and how many failed."""
    orders: queue.SimpleQueue[None] = queue.SimpleQueue()
    answers: queue.SimpleQueue[int | Exception] = queue.SimpleQueue()
    for _ in range(total // BATCH):
        orders.put(None)
    threads = [
        threading.Thread(target=_feed, args=(client, orders, answers), daemon=True)
        for client in running.clients
    ]
    worker_line: Line = [(0, running.worker_memory())]
    client_line: Line = [(0, running.client_memory())]
    for thread in threads:
        thread.start()
    failed = 0
    for done in range(BATCH, total + 1, BATCH):
        answer = answers.get()
        if isinstance(answer, Exception):
            raise answer
        failed += answer
        worker_line.append((done, running.worker_memory()))
        client_line.append((done, running.client_memory()))
        if done % (total // 10) == 0:
            bench.step(f"memory: {done} of {total}, worker {worker_line[-1][1]:.0f} MB")
    for thread in threads:
        thread.join()
    return worker_line, client_line, failed


def _feed(
    client: Client,
    orders: queue.SimpleQueue[None],
    answers: queue.SimpleQueue[int | Exception],
) -> None:
    under_way = 0
    try:
        while True:
            with suppress(queue.Empty):
                while under_way < 2:
                    orders.get_nowait()
                    client.send("burst", count=BATCH, type="USER_LIST")
                    under_way += 1
            if not under_way:
                return
            answers.put(sum(client.receive()["failures"].values()))
            under_way -= 1
    except Exception as error:  # it is raised where the answers are waited for
        answers.put(error)


def _at(line: Line, instructions: float) -> float:
    return next(memory for done, memory in line if done >= instructions)
