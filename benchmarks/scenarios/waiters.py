"""A thousand threads of one client process wait in ``get()`` at once, for a worker still to come.

The instructions are submitted while no worker runs; then all threads call ``get()``, as it comes;
then a worker is started. What counts: how many waiters fail, how many PostgreSQL connections they
take, and the seconds from the worker being ready to the last waiter being done.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.clients import ClientFailed, clients
from benchmarks.figures import Bars, Report, Table
from benchmarks.servers import ConnectionSampler
from benchmarks.sides import Side, Worker, ours, stock_celery, temporary_place, workers

TIMEOUT = 90.0


def run(bench: Bench) -> Report:
    """See the module's docstring. Each side has the machine to itself, one after the other."""
    count = 200 if bench.quick else 1000
    outcomes: list[dict[str, Any]] = []
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"waiters-{name}"))
            for name in ("ours", "stock")
        ]
        sides = [ours(places[0]), stock_celery(places[1])]
        for side in sides:
            bench.step(f"waiters: {count} threads of {side.name}")
            outcomes.append(_wait(bench, side, count))
    table = Table(f"{count} threads in get()", tuple(side.name for side in sides))
    table.add("waiters done", "", [o["done"] for o in outcomes], "plain")
    table.add("waiters failed", "", [o["failed"] for o in outcomes], "plain")
    table.add("worker ready → last waiter done", "s", [o["seconds"] for o in outcomes])
    table.add("PostgreSQL connections, most", "", [o["connections"] for o in outcomes])
    table.add("memory of the client", "MB", [o["memory"] for o in outcomes])
    table.add("CPU of the client", "s", [o["cpu"] for o in outcomes])
    report = Report([table], raw={s.name: o for s, o in zip(sides, outcomes, strict=True)})
    report.notes = [
        f"{side.name}: {outcome['failures']}"
        for side, outcome in zip(sides, outcomes, strict=True)
        if outcome["failures"]
    ]
    failed = tuple((s.name, float(o["failed"])) for s, o in zip(sides, outcomes, strict=True))
    report.plots = [Bars(f"waiters failed, of {count}", "", failed)]
    if outcomes[0]["failed"]:
        report.failures = [f"ours: {outcomes[0]['failed']} of {count} waiters failed"]
    return report


def _wait(bench: Bench, side: Side, count: int) -> dict[str, Any]:
    with workers(side, bench.directory):
        pass  # the queues are declared by a worker, and must be there before anything is sent
    with ExitStack() as stack:
        (client,) = stack.enter_context(clients(side, bench.directory))
        sampler = stack.enter_context(ConnectionSampler(side.place))
        client.send("waiters", count=count, type="USER_LIST", timeout=TIMEOUT)
        client.receive()
        used = client.cpu()
        worker = Worker(side, bench.directory)
        stack.callback(worker.stop)
        seconds: float | None = None
        try:
            started = worker.start()
            bench.step(f"waiters: the worker of {side.name} was ready after {started:.1f} s")
            ready = worker.ready_at
            answer = client.receive(TIMEOUT + 60)
            failures: dict[str, int] = answer["failures"]
            seconds = answer["moments"][-1] - ready
        except ClientFailed:
            failures = {"no answer": count}
        failed = sum(failures.values())
        return {
            "done": count - failed,
            "failed": failed,
            "failures": failures,
            "seconds": seconds if failed < count else None,
            "connections": sampler.most,
            "memory": client.resident(),
            "cpu": client.cpu() - used,
        }
