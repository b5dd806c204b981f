"""A thousand threads of one client process wait in ``get()`` at once, for a worker still to come.

The instructions are submitted while no worker runs; then all threads call ``get()``, as it comes;
then a worker is started. What counts: how many waiters fail, how many PostgreSQL connections they
take, and the seconds from the worker being ready to each waiter being done.

Each side has the machine to itself and is measured once: stock's threads look all the time, so that
nothing else could be measured beside them, and a second round would cost minutes more.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench, Costs, add_costs, costs_of, running
from benchmarks.clients import ClientFailed
from benchmarks.figures import Bars, Report, Table
from benchmarks.sides import Side, Worker, ours, stock_celery, temporary_place, workers

TIMEOUT = 60.0


@dataclass
class Outcome:
    """``times``: seconds from the worker being ready to each of those that were done."""

    times: list[float]
    failures: dict[str, int]
    costs: Costs

    @property
    def failed(self) -> int:
        """How many."""
        return sum(self.failures.values())


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    count = 200 if bench.quick else 1000
    outcomes: list[Outcome] = []
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
    table.add("waiters done", "", [len(o.times) for o in outcomes], "plain")
    table.add("waiters failed", "", [o.failed for o in outcomes], "plain")
    lasts = [o.times[-1] if o.times else None for o in outcomes]
    table.add("worker ready → last waiter done", "s", lasts)
    table.add_percentiles("worker ready → a waiter done", [o.times for o in outcomes])
    add_costs(table, [o.costs for o in outcomes])
    report = Report([table], raw={s.name: asdict(o) for s, o in zip(sides, outcomes, strict=True)})
    report.notes = [
        f"{side.name}: {outcome.failures}"
        for side, outcome in zip(sides, outcomes, strict=True)
        if outcome.failures
    ]
    failed = tuple((s.name, float(o.failed)) for s, o in zip(sides, outcomes, strict=True))
    took = tuple((s.name, last) for s, last in zip(sides, lasts, strict=True) if last is not None)
    report.plots = [
        Bars(f"waiters failed, of {count}", "", failed),
        Bars("worker ready → last waiter done", "s", took),
    ]
    if outcomes[0].failed:
        report.failures = [f"ours: {outcomes[0].failed} of {count} waiters failed"]
    return report


def _wait(bench: Bench, side: Side, count: int) -> Outcome:
    with workers(side, bench.directory):
        pass  # the queues are declared by a worker, and must be there before anything is sent
    with ExitStack() as stack:
        up = running(stack, bench, side)
        (client,) = up.clients
        client.send("waiters", count=count, type="USER_LIST", timeout=TIMEOUT)
        client.receive()
        up.start_meter()
        worker = Worker(side, bench.directory)
        stack.callback(worker.stop)
        times: list[float] = []
        try:
            started = worker.start()
            up.add_worker(worker)
            bench.step(f"waiters: the worker of {side.name} was ready after {started:.1f} s")
            answer = client.receive(TIMEOUT + 60)
            failures: dict[str, int] = answer["failures"]
            times = [moment - worker.ready_at for moment in answer["moments"]]
        except ClientFailed:
            failures = {"no answer": count}
        up.stop_meter(max(1, len(times)))
        return Outcome(times, failures, costs_of(up))
