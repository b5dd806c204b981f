"""All submitted, then all collected: full cycles per second, with 1 and with 8 client processes.

Stock's sides get fewer instructions: a rate does not depend on how many there are, and 2000 of them
take each of its sides minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from benchmarks.bench import Bench, Running, add_costs, costs_of, run_side, share, warm_up
from benchmarks.figures import Bars, Report, Table
from benchmarks.sides import ours, stock_celery, temporary_place

CLIENTS = (1, 8)
ROUNDS = 2
#: Instructions of a side, in all rounds together.
OURS, STOCK = 2000, 300
QUICK_OURS, QUICK_STOCK = 300, 100


def run(bench: Bench) -> Report:
    """See the module's docstring. The instructions are spread over the rounds."""
    report = Report()
    for client_count in CLIENTS:
        _with_clients(bench, report, client_count)
    report.notes = [
        "The percentiles are of the time from an instruction's submission to its envelope in hand, "
        "with all of a round submitted at once: the more instructions, the longer."
    ]
    return report


def _with_clients(bench: Bench, report: Report, client_count: int) -> None:
    mine, theirs = (QUICK_OURS, QUICK_STOCK) if bench.quick else (OURS, STOCK)
    counts = [mine, theirs, theirs]
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"throughput-{name}"))
            for name in ("ours", "threads", "prefork")
        ]
        sides = [ours(places[0]), stock_celery(places[1]), stock_celery(places[2], "prefork")]
        runnings = [run_side(stack, bench, side, client_count=client_count) for side in sides]
        warm_up(runnings)
        cycles: list[list[float]] = [[] for _ in runnings]
        submitted: list[list[float]] = [[] for _ in runnings]
        times: list[list[float]] = [[] for _ in runnings]
        for number in range(ROUNDS):
            for index, running in enumerate(runnings):
                count = counts[index] // ROUNDS
                found = burst(running, count)
                cycles[index].append(count / found.seconds)
                submitted[index].append(count / found.submitting)
                times[index] += found.times
                bench.step(
                    f"throughput, {client_count} client(s), round {number + 1} of {ROUNDS}: "
                    f"{running.side.name} {count / found.seconds:.0f} per second"
                )
                report.failures += [f"{running.side.name}: {text}" for text in found.failures]
        table = Table(f"{client_count} client process(es)", tuple(side.name for side in sides))
        table.add("instructions", "", counts, "plain")
        means = [mean_rate(values) for values in cycles]
        table.add("full cycles per second", "/s", means, "higher")
        table.add("submitted per second", "/s", map(mean_rate, submitted), "higher")
        table.add_percentiles("submit → envelope", times)
        add_costs(table, [costs_of(running) for running in runnings])
    report.tables.append(table)
    report.raw[f"{client_count} clients"] = {
        side.name: {"cycles_per_second": values, "submitted_per_second": rate, "times": taken}
        for side, values, rate, taken in zip(sides, cycles, submitted, times, strict=True)
    }
    bars = tuple((side.name, value) for side, value in zip(sides, means, strict=True))
    report.plots.append(Bars(f"full cycles per second, {client_count} client(s)", "/s", bars))


def mean_rate(rates: Sequence[float]) -> float:
    """Of rounds with as many instructions each."""
    return len(rates) / sum(1 / rate for rate in rates)


@dataclass(frozen=True)
class Burst:
    """Seconds from the first submission to the last envelope, of submitting, and of each one."""

    seconds: float
    submitting: float
    times: list[float]
    failures: list[str]


def burst(running: Running, count: int) -> Burst:
    """``count`` instructions by all clients of a side together, metered."""
    running.start_meter()
    parts = share(count, len(running.clients))
    for client, part in zip(running.clients, parts, strict=True):
        client.send("burst", count=part, type="USER_LIST")
    answers = [client.receive() for client in running.clients]
    running.stop_meter(count)
    began = min(answer["began"] for answer in answers)
    return Burst(
        seconds=max(answer["ended"] for answer in answers) - began,
        submitting=max(answer["began"] + answer["submitted"] for answer in answers) - began,
        times=[seconds for answer in answers for seconds in answer["times"]],
        failures=[f"{n} x {name}" for a in answers for name, n in a["failures"].items()],
    )
