"""One instruction at a time: from ``submit`` to the envelope in hand, and ``submit`` alone.

The sides take turns in short rounds, so that a machine that slows down slows all of them. Stock's
``get()`` is called in two ways: with a pause of 10 ms between two looks, and as it is documented, where
the pause is 0.5 s.
"""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.bench import Bench, Running, add_costs, costs_of, run_side, warm_up
from benchmarks.figures import Bars, Report, Table, percentile
from benchmarks.sides import ours, stock_celery, temporary_place

#: Of a round's instructions of a stock side, one for which ``get()`` is called as it comes, per so many.
AS_IT_COMES = 5


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    # Short rounds: a machine whose speed changes does so for all sides.
    rounds, count = (4, 25) if bench.quick else (20, 25)
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"latency-{name}"))
            for name in ("ours", "threads", "prefork")
        ]
        sides = [ours(places[0]), stock_celery(places[1]), stock_celery(places[2], "prefork")]
        runnings = [run_side(stack, bench, side) for side in sides]
        warm_up(runnings)
        submits: list[list[float]] = [[] for _ in runnings]
        cycles: list[list[float]] = [[] for _ in runnings]
        as_it_comes: list[list[float]] = [[] for _ in runnings]
        failed = [0 for _ in runnings]
        for number in range(rounds):
            bench.step(f"latency: round {number + 1} of {rounds}, {count} instructions each")
            for index, running in enumerate(runnings):
                running.start_meter()
                answer = running.clients[0].ask("latency", count=count, type="USER_LIST")
                running.stop_meter(count)
                submits[index] += answer["submit"]
                cycles[index] += answer["cycle"]
                failed[index] += answer["failed"]
                if running.side.kind == "stock":
                    as_it_comes[index] += _default_get(running, count // AS_IT_COMES)
        as_it_comes[0] = cycles[0]  # there is nothing to tune
        table = Table("One at a time", tuple(side.name for side in sides))
        table.add_percentiles("submit → envelope", cycles)
        table.add_percentiles("submit alone", submits)
        add_costs(table, [costs_of(running) for running in runnings])
        table.add("failed", "", failed, "plain")
        documented = Table("With get() as it comes", table.columns)
        documented.add_percentiles("submit → envelope", as_it_comes)
    raw = {"cycle": cycles, "submit": submits, "as_it_comes": as_it_comes[1:]}
    report = Report([table, documented], raw=raw)
    report.notes = [
        "stock's get() is called with interval=0.01 in the first table. As it comes it looks every "
        "0.5 s, so what it takes depends on what its first look finds.",
        "submit alone is not the same work: ours commits a row and waits for the broker's confirm, "
        "stock waits for the confirm.",
    ]
    report.plots = [
        Bars(
            "submit → envelope, p50",
            "ms",
            tuple(
                (side.name, percentile(samples, 0.5) * 1000)
                for side, samples in zip(sides, cycles, strict=True)
            ),
        )
    ]
    report.failures = [
        f"{side.name}: {number} cycles failed"
        for side, number in zip(sides, failed, strict=True)
        if number
    ]
    return report


def _default_get(stock: Running, count: int) -> list[float]:
    answer = stock.clients[0].ask("latency", count=count, type="USER_LIST", default=True)
    cycles: list[float] = answer["cycle"]
    return cycles
