"""Calls through ours beside calls through LiteLLM's proxy and calls of the provider itself.

All three in turns, of the same provider, from the same processes: added to a call and to the first
token one at a time, calls per second with 64 callers, and a thousand calls of 2 s at once. LiteLLM's
proxy is one process and keeps nothing; ours are two worker processes, RabbitMQ and PostgreSQL, and
every instruction, message, event and call is kept. Ours asks the provider for a stream in any case,
LiteLLM only where its own client does: the provider answers each as it was asked, in 4 pieces or whole.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.bench import Bench, Running, add_costs, costs_of, running, share
from benchmarks.clients import Client, clients
from benchmarks.figures import Bars, Report, Table, percentile
from benchmarks.litellm import VERSION, Proxy, installed, litellm
from benchmarks.processes import cpu_seconds, resident_megabytes
from benchmarks.scenarios.llm_concurrency import (
    DELAY,
    GENERATE,
    OTHERS,
    PROCESSES,
    add_chats,
    generate,
    running_provider,
)
from benchmarks.sides import CONCURRENCY, Side, ours, temporary_place, workers
from llmchatlinker.settings import Settings

TOKENS = 4
CALLERS = 64
#: Chats of a caller, used in turns: what was said before in a chat is sent along, and is not to grow
#: with every round.
CHATS = 64
#: Connections of a process; the most that its pool may have.
POOL = Settings().database_pool_size
INSTANT, SLOW = "instant", "slow"
COLUMNS = ("ours", f"LiteLLM {VERSION}", "direct")


@dataclass
class Measured:
    """The samples of a side, in seconds; ``rates``: calls per second, a round each."""

    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    loaded: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    failed: int = 0
    why: dict[str, int] = field(default_factory=dict)
    #: CPU seconds of LiteLLM: one at a time, and under load.
    cpu_alone: float = 0.0
    cpu_loaded: float = 0.0

    def add_load(self, answers: list[dict[str, Any]]) -> None:
        """A round under load, as the processes saw it."""
        times = [seconds for answer in answers for seconds in answer["times"]]
        began = min(answer["began"] for answer in answers)
        self.loaded += times
        self.rates.append(len(times) / (max(a["ended"] for a in answers) - began))
        for answer in answers:
            self.failed += sum(answer["failures"].values())
            self.why |= answer["failures"]


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    rounds, count, seconds = (2, 25, 4.0) if bench.quick else (5, 50, 8.0)
    bench.step(f"gateway: LiteLLM {VERSION}, from PyPI if it is not there yet")
    command = installed()
    sides = {name: Measured() for name in COLUMNS}
    with ExitStack() as stack:
        instant = stack.enter_context(running_provider(0.0, TOKENS))
        slow = stack.enter_context(running_provider(DELAY, 1))
        place = stack.enter_context(temporary_place(bench.servers, "gateway"))
        side = ours(place)
        datas = add_chats(place, instant, CALLERS * CHATS)
        bench.step("gateway: starting LiteLLM, two workers and the callers")
        proxy = stack.enter_context(
            litellm(command, bench.directory, {INSTANT: instant, SLOW: slow})
        )
        with ExitStack() as inner:
            up = running(inner, bench, side, PROCESSES)
            for queues, slots in (((GENERATE,), CALLERS), (OTHERS, CONCURRENCY)):
                up.workers += inner.enter_context(
                    workers(side, bench.directory, queues=queues, concurrency=slots)
                )
            calls = _Calls(up.clients, datas, instant, proxy)
            calls.warm_up()
            alone, loaded = up.meter_of_its_own(), up.meter_of_its_own()
            for number in range(rounds):
                bench.step(f"gateway: round {number + 1} of {rounds}, one at a time")
                calls.one_at_a_time(sides, count, alone)
            for number in range(rounds):
                bench.step(f"gateway: round {number + 1} of {rounds}, {CALLERS} callers")
                calls.at_once(sides, seconds, loaded)
            connections = up.sampler.most
            tables = [_one_at_a_time(sides, proxy, alone), _under_load(sides, proxy, loaded)]
            allowed = POOL * (len(up.workers) + PROCESSES)
        table, thousand = _thousand(bench, side, slow, proxy)
    raw: dict[str, Any] = {name: vars(found) for name, found in sides.items()} | thousand
    report = Report([*tables, table], raw=raw)
    report.notes = [f"{name}: {found.why}" for name, found in sides.items() if found.why]
    report.plots = _plots(sides)
    failed = thousand["ours at once"]["failed"]
    if sides["ours"].failed or failed or connections > allowed:
        report.failures = [
            f"ours: {sides['ours'].failed} calls of {CALLERS} callers failed, "
            f"{failed} of those at once; {connections} connections of {allowed}"
        ]
    return report


@dataclass
class _Calls:
    """The same calls of all sides, one side after the other."""

    callers: list[Client]
    datas: list[dict[str, Any]]
    instant: str
    proxy: Proxy

    def warm_up(self) -> None:
        """What comes first opens connections and imports modules."""
        self.one_at_a_time({name: Measured() for name in COLUMNS}, 5)
        self.at_once({name: Measured() for name in COLUMNS}, 1.0)

    def one_at_a_time(
        self, sides: dict[str, Measured], count: int, meter: Running | None = None
    ) -> None:
        """Whole answers, then streams."""
        first, before = self.callers[0], _cpu(self.proxy)
        for name, where in self._http():
            for stream in (False, True):
                answer = first.ask("http-latency", count=count, stream=stream, **where)
                sides[name].whole += [] if stream else answer["whole"]
                sides[name].first += answer["first"] if stream else []
        sides[COLUMNS[1]].cpu_alone += _cpu(self.proxy) - before
        order = {"count": count, "datas": self.datas[:count]}
        if meter:
            meter.start_meter()
        mine = first.ask("latency", type="LLM_RESPONSE_GENERATE", **order)
        sides["ours"].whole += mine["cycle"]
        sides["ours"].failed += mine["failed"]
        sides["ours"].first += first.ask("ours-first", **order)["first"]
        if meter:
            meter.stop_meter(2 * count)

    def at_once(
        self, sides: dict[str, Measured], seconds: float, meter: Running | None = None
    ) -> None:
        """As many calls as there can be."""
        shares, before = share(CALLERS, len(self.callers)), _cpu(self.proxy)
        for name, where in self._http():
            for caller, number in zip(self.callers, shares, strict=True):
                caller.send("http-load", callers=number, seconds=seconds, **where)
            sides[name].add_load([caller.receive() for caller in self.callers])
        sides[COLUMNS[1]].cpu_loaded += _cpu(self.proxy) - before
        of_each = [self.datas[number::CALLERS] for number in range(CALLERS)]
        if meter:
            meter.start_meter()
        for caller, number in zip(self.callers, shares, strict=True):
            mine, of_each = of_each[:number], of_each[number:]
            caller.send("ours-load", datas=mine, seconds=seconds)
        answers = [caller.receive() for caller in self.callers]
        sides["ours"].add_load(answers)
        if meter:
            meter.stop_meter(sum(len(answer["times"]) for answer in answers))

    def _http(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            (COLUMNS[2], {"url": self.instant, "model": INSTANT}),
            (
                COLUMNS[1],
                {"url": self.proxy.url, "model": INSTANT, "headers": self.proxy.headers},
            ),
        ]


def _thousand(
    bench: Bench, side: Side, slow: str, proxy: Proxy
) -> tuple[Table, dict[str, dict[str, Any]]]:
    """From as many client processes for each side; ours with workers of its own for it, as in
    ``llm-concurrency``."""
    count = 100 if bench.quick else 1000
    found: dict[str, dict[str, Any]] = {}
    bench.step(f"gateway: {count} calls of {DELAY:g} s at once")
    with clients(side, bench.directory, PROCESSES) as callers:
        for name, where in (
            (COLUMNS[2], {"url": slow, "model": SLOW}),
            (COLUMNS[1], {"url": proxy.url, "model": SLOW, "headers": proxy.headers}),
        ):
            before = _cpu(proxy)
            for caller, number in zip(callers, share(count, PROCESSES), strict=True):
                caller.send("http-load", callers=number, seconds=0, **where)
            answers = [caller.receive() for caller in callers]
            found[name] = {
                "seconds": max(a["ended"] for a in answers) - min(a["began"] for a in answers),
                "times": [seconds for answer in answers for seconds in answer["times"]],
                "failed": sum(sum(answer["failures"].values()) for answer in answers),
                "failures": [answer["failures"] for answer in answers],
                "cpu": _cpu(proxy) - before,
            }
    found[COLUMNS[1]]["llm_memory"] = resident_megabytes(_pid(proxy))
    with temporary_place(bench.servers, "gateway-at-once") as place:
        datas = add_chats(place, slow, count)
        outcome = generate(bench, ours(place), OTHERS, datas)
    found["ours"] = asdict(outcome) | {"failed": outcome.failed}
    table = Table(f"{count} calls of {DELAY:g} s at once", COLUMNS)
    values = [found[column] for column in COLUMNS]
    table.add("first sent → last in hand", "s", [value["seconds"] for value in values])
    table.add("failed", "", [value["failed"] for value in values], "plain")
    table.add_percentiles("a call", [value["times"] for value in values])
    for name, key in (
        ("memory of the LLM worker, of LiteLLM", "llm_memory"),
        ("memory of the other worker", "other_memory"),
    ):
        table.add(name, "MB", [value.get(key) for value in values])
    used = found[COLUMNS[1]]["cpu"] * 1000 / count
    table.add("CPU of LiteLLM per 1000", "s", [None, used, None])
    add_costs(table, [outcome.costs, None, None])
    return table, {f"{name} at once": value for name, value in found.items()}


def _add_proxy(table: Table, proxy: Proxy, cpu: float, calls: int) -> None:
    """What LiteLLM's one process takes: it has neither client, nor broker, nor database."""
    table.add("CPU of LiteLLM per 1000", "s", [None, cpu * 1000 / max(1, calls), None])
    table.add("memory of LiteLLM", "MB", [None, resident_megabytes(_pid(proxy)), None])


def _one_at_a_time(sides: dict[str, Measured], proxy: Proxy, meter: Running) -> Table:
    table = Table("One at a time", COLUMNS)
    for title, samples in (
        ("a call", [sides[name].whole for name in COLUMNS]),
        ("first token", [sides[name].first for name in COLUMNS]),
    ):
        table.add_percentiles(title, samples)
        table.add(f"added to {title}, p50", "ms", [*_added(samples), None])
    proxied = sides[COLUMNS[1]]
    _add_proxy(table, proxy, proxied.cpu_alone, len(proxied.whole) + len(proxied.first))
    add_costs(table, [costs_of(meter), None, None])
    return table


def _added(samples: list[list[float]]) -> list[float]:
    """Milliseconds that the medians are above that of the last side, which is direct."""
    medians = [percentile(some, 0.5) * 1000 for some in samples]
    return [median - medians[-1] for median in medians[:-1]]


def _under_load(sides: dict[str, Measured], proxy: Proxy, meter: Running) -> Table:
    found = [sides[name] for name in COLUMNS]
    table = Table(f"{CALLERS} callers, a provider that answers at once", COLUMNS)
    table.add("calls per second", "", [percentile(side.rates, 0.5) for side in found], "higher")
    table.add_percentiles("a call", [side.loaded for side in found])
    table.add("failed", "", [side.failed for side in found], "plain")
    proxied = sides[COLUMNS[1]]
    _add_proxy(table, proxy, proxied.cpu_loaded, len(proxied.loaded))
    add_costs(table, [costs_of(meter), None, None])
    return table


def _plots(sides: dict[str, Measured]) -> list[Any]:
    titles = ("added to a call, p50", "added to the first token, p50")
    added = [
        _added([getattr(sides[name], kind) for name in COLUMNS]) for kind in ("whole", "first")
    ]
    plots: list[Any] = [
        Bars(title, "ms", tuple(zip(COLUMNS, values, strict=False)))
        for title, values in zip(titles, added, strict=True)
    ]
    rates = tuple((name, percentile(sides[name].rates, 0.5)) for name in COLUMNS[:2])
    return [*plots, Bars(f"calls per second, {CALLERS} callers", "", rates)]


def _pid(proxy: Proxy) -> int:
    assert proxy.process.pid is not None
    return proxy.process.pid


def _cpu(proxy: Proxy) -> float:
    return cpu_seconds(_pid(proxy))
