"""All submitted, then all collected: full cycles per second, with 1 and with 8 client processes."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.bench import Bench, Running, run_side, share, warm_up
from benchmarks.figures import Bars, Report, Table
from benchmarks.scenarios.latency import add_costs
from benchmarks.servers import ConnectionSampler
from benchmarks.sides import ours, stock_celery, temporary_place

CLIENTS = (1, 8)


def run(bench: Bench) -> Report:
    """See the module's docstring. The instructions are spread over the rounds."""
    rounds, total = (2, 300) if bench.quick else (2, 2000)
    report = Report()
    for client_count in CLIENTS:
        _with_clients(bench, report, client_count, rounds, total // rounds)
    return report


def _with_clients(bench: Bench, report: Report, client_count: int, rounds: int, count: int) -> None:
    with ExitStack() as stack:
        places = [
            stack.enter_context(temporary_place(bench.servers, f"throughput-{name}"))
            for name in ("ours", "threads", "prefork")
        ]
        sides = [ours(places[0]), stock_celery(places[1]), stock_celery(places[2], "prefork")]
        runnings = [run_side(stack, bench, side, client_count=client_count) for side in sides]
        samplers = [stack.enter_context(ConnectionSampler(place)) for place in places]
        warm_up(runnings)
        cycles: list[list[float]] = [[] for _ in runnings]
        submitted: list[list[float]] = [[] for _ in runnings]
        for number in range(rounds):
            for index, running in enumerate(runnings):
                seconds, submitting, failures = burst(running, count)
                cycles[index].append(count / seconds)
                submitted[index].append(count / submitting)
                bench.step(
                    f"throughput, {client_count} client(s), round {number + 1} of {rounds}: "
                    f"{running.side.name} {count / seconds:.0f} per second"
                )
                report.failures += [f"{running.side.name}: {text}" for text in failures]
        title = f"{count * rounds} instructions, {client_count} client process(es)"
        table = Table(title, tuple(side.name for side in sides))
        means = [len(values) / sum(1 / value for value in values) for values in cycles]
        table.add("full cycles per second", "/s", means, "higher")
        rates = [len(values) / sum(1 / value for value in values) for values in submitted]
        table.add("submitted per second", "/s", rates, "higher")
        add_costs(table, runnings, [sampler.most for sampler in samplers])
    report.tables.append(table)
    report.raw[f"{client_count} clients"] = {
        side.name: {"cycles_per_second": values, "submitted_per_second": rate}
        for side, values, rate in zip(sides, cycles, submitted, strict=True)
    }
    bars = tuple((side.name, value) for side, value in zip(sides, means, strict=True))
    report.plots.append(Bars(f"full cycles per second, {client_count} client(s)", "/s", bars))


def burst(running: Running, count: int) -> tuple[float, float, list[str]]:
    """Seconds from the first submission to the last envelope, seconds of submitting, failures."""
    running.start_meter()
    parts = share(count, len(running.clients))
    for client, part in zip(running.clients, parts, strict=True):
        client.send("burst", count=part, type="USER_LIST")
    answers = [client.receive() for client in running.clients]
    running.stop_meter(count)
    began = min(answer["began"] for answer in answers)
    ended = max(answer["ended"] for answer in answers)
    submitting = max(answer["began"] + answer["submitted"] for answer in answers) - began
    failures = [f"{n} x {name}" for a in answers for name, n in a["failures"].items()]
    return ended - began, submitting, failures
