"""Whether an instruction costs the same however much there is: workers, messages, rows.

* 1, 2 and 4 worker processes: full cycles per second. More workers than cores gain nothing.
* 10, 1 000 and 100 000 messages in a chat: loading it, and a turn in it.
* 1 000, 100 000 and 1 000 000 rows in each table that grows with use.

Only ours: the sizes take turns with each other, and the last column is the largest beside the
smallest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from benchmarks.bench import (
    Bench,
    Costs,
    Running,
    add_costs,
    costs_of,
    run_side,
    warm_up,
    with_growth,
)
from benchmarks.figures import PERCENTILES, Lines, Report, Table, percentile
from benchmarks.scenarios.llm_concurrency import running_provider
from benchmarks.scenarios.scale_data import add_long_chats, fill_tables
from benchmarks.scenarios.throughput import burst, mean_rate
from benchmarks.sides import ours, temporary_place

WORKERS = (1, 2, 4)
CLIENTS = 4
CHAT_LENGTHS = (10, 1_000, 100_000)
ROWS = (1_000, 100_000, 1_000_000)
TYPES_BY_ROWS: dict[str, Callable[[int], dict[str, Any]]] = {
    "USER_LIST": lambda n: {"after": n, "limit": 10},
    "USER_GET": lambda n: {"user_id": n},
    "CHAT_LOAD": lambda n: {"chat_id": n},
    "CHAT_LIST_BY_USER": lambda n: {"user_id": n},
    "CHAT_CREATE": lambda n: {"title": "one more", "user_ids": [n]},
}


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    report = Report()
    _by_workers(bench, report)
    _by_chat_length(bench, report)
    _by_rows(bench, report)
    return report


def _by_workers(bench: Bench, report: Report) -> None:
    rounds, count = (1, 400) if bench.quick else (3, 500)
    with ExitStack() as stack:
        runnings: list[Running] = []
        for number in WORKERS:
            place = stack.enter_context(temporary_place(bench.servers, f"workers-{number}"))
            side = ours(place, f"{number} worker(s)")
            runnings.append(run_side(stack, bench, side, worker_count=number, client_count=CLIENTS))
        warm_up(runnings)
        rates: list[list[float]] = [[] for _ in runnings]
        times: list[list[float]] = [[] for _ in runnings]
        for round_number in range(rounds):
            for index, running in enumerate(runnings):
                found = burst(running, count)
                rates[index].append(count / found.seconds)
                times[index] += found.times
                report.failures += [f"{running.side.name}: {text}" for text in found.failures]
            bench.step(f"scale: workers, round {round_number + 1} of {rounds}")
        costs = [costs_of(running) for running in runnings]
    means = [mean_rate(values) for values in rates]
    table = Table("worker processes", tuple(r.side.name for r in runnings), ratios=False)
    table.add("full cycles per second", "/s", means, "higher")
    table.add_percentiles(f"submit → envelope, {count} at once,", times)
    add_costs(table, costs)
    report.tables.append(table)
    report.raw["workers"] = dict(zip(map(str, WORKERS), rates, strict=True))
    points = [(float(number), rate) for number, rate in zip(WORKERS, means, strict=True)]
    report.plots.append(Lines("worker processes", "processes", "per second", {"ours": points}))


def _by_chat_length(bench: Bench, report: Report) -> None:
    rounds, count = (2, 10) if bench.quick else (4, 25)
    with ExitStack() as stack:
        url = stack.enter_context(running_provider(0.0))
        place = stack.enter_context(temporary_place(bench.servers, "chats"))
        bench.step("scale: making chats")
        chats = add_long_chats(place, CHAT_LENGTHS, url)
        running = run_side(stack, bench, ours(place))
        warm_up([running])
        meters = [running.meter_of_its_own() for _ in CHAT_LENGTHS]
        types: dict[str, Callable[[int], dict[str, Any]]] = {
            "CHAT_LOAD": lambda length: {"chat_id": chats[length]},
            "LLM_RESPONSE_GENERATE": lambda length: {
                "user_id": 1,
                "chat_id": chats[length],
                "llm_id": 1,
                "user_input": "And then?",
            },
        }
        cycles: dict[str, list[list[float]]] = {name: [[] for _ in chats] for name in types}
        for round_number in range(rounds):
            for name, data in types.items():
                for index, length in enumerate(CHAT_LENGTHS):
                    meters[index].start_meter()
                    answer = running.clients[0].ask(
                        "latency", count=count, type=name, data=data(length)
                    )
                    meters[index].stop_meter(count)
                    cycles[name][index] += answer["cycle"]
                    _note_failures(report, f"{name}, {length} messages", answer["failed"])
            bench.step(f"scale: chats, round {round_number + 1} of {rounds}")
        costs = [costs_of(meter) for meter in meters]
    _add(report, "messages in a chat", CHAT_LENGTHS, cycles, costs)
    report.notes.append("messages in a chat: one worker and one client serve all of the chats.")


def _by_rows(bench: Bench, report: Report) -> None:
    sizes = ROWS[:2] if bench.quick else ROWS
    rounds, count = (2, 10) if bench.quick else (4, 25)
    with ExitStack() as stack:
        runnings: list[Running] = []
        for size in sizes:
            place = stack.enter_context(temporary_place(bench.servers, f"rows-{size}"))
            bench.step(f"scale: filling the tables with {size} rows each")
            fill_tables(place, size)
            runnings.append(run_side(stack, bench, ours(place, f"{size} rows")))
        warm_up(runnings)
        cycles: dict[str, list[list[float]]] = {name: [[] for _ in sizes] for name in TYPES_BY_ROWS}
        for round_number in range(rounds):
            for name, data in TYPES_BY_ROWS.items():
                for index, (size, running) in enumerate(zip(sizes, runnings, strict=True)):
                    datas = [data(n) for n in _spread(size, count, round_number)]
                    running.start_meter()
                    answer = running.clients[0].ask("latency", count=count, type=name, datas=datas)
                    running.stop_meter(count)
                    cycles[name][index] += answer["cycle"]
                    _note_failures(report, f"{name}, {size} rows", answer["failed"])
            bench.step(f"scale: rows, round {round_number + 1} of {rounds}")
        costs = [costs_of(running) for running in runnings]
    _add(report, "rows in each table", sizes, cycles, costs)


def _spread(size: int, count: int, round_number: int) -> list[int]:
    """Ids from everywhere in 1 … size, others in each round; the same in each run."""
    return [1 + (7_919 * (round_number * count + n + 1)) % (size - 20) for n in range(count)]


def _note_failures(report: Report, what: str, failed: int) -> None:
    if failed:
        report.failures.append(f"{what}: {failed} failed")


def _add(
    report: Report,
    title: str,
    sizes: Sequence[int],
    cycles: dict[str, list[list[float]]],
    costs: list[Costs],
) -> None:
    """The table and the plot of cycles by type and size."""
    columns = (*(f"{size:,}" for size in sizes), "last : first")
    table = Table(title, columns, ratios=False)
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, samples in cycles.items():
        for label, share in PERCENTILES:
            values = [percentile(sample, share) * 1000 for sample in samples]
            table.add(f"{name} {label}", "ms", with_growth(values))
        medians = [percentile(sample, 0.5) * 1000 for sample in samples]
        lines[name.replace("LLM_RESPONSE_", "")] = [
            (float(size), value) for size, value in zip(sizes, medians, strict=True)
        ]
    add_costs(table, costs, growth=True)
    report.tables.append(table)
    report.plots.append(Lines(f"{title}: submit → envelope, p50", title, "ms", lines, True))
    report.raw[title] = cycles
