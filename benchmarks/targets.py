"""What the figures should be, and whether they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import CONNECTIONS, CPU_OF_WORKERS
from benchmarks.results import Missing, Results
from benchmarks.scenarios.streams import ADDED, SEEN_FAULTS, STORED_FAULTS, WORKER_RATE
from llmchatlinker.settings import Settings

POOL = Settings().database_pool_size
#: Of the scenario ``gateway`` under load: two workers and four clients.
GATEWAY_PROCESSES = 6


@dataclass(frozen=True)
class Measured:
    """What was found, in words; whether it is as good as it has to be, and as it should be."""

    words: str
    least: bool
    aim: bool


@dataclass(frozen=True)
class Target:
    """``measure`` raises Missing where the scenario has not been run."""

    figure: str
    least: str
    aim: str
    measure: Callable[[Results], Measured]


def table(results: Results) -> str:
    """All of them, in Markdown."""
    lines = ["| figure | at least | aim | measured | reached |", "|---|---|---|---|---|"]
    for target in TARGETS:
        try:
            found = target.measure(results)
        except Missing:
            words, reached = "not yet", ""
        else:
            words = found.words
            reached = "the aim" if found.aim else "at least" if found.least else "no"
        lines.append(f"| {target.figure} | {target.least} | {target.aim} | {words} | {reached} |")
    return "\n".join(lines)


def _cycle(results: Results) -> Measured:
    row = "submit → envelope p50"
    mine, stock = _beside(results, "latency", "With get() as it comes", row, min)
    _, tuned = _beside(results, "latency", "One at a time", row, min)
    words = (
        f"{mine:.1f} ms, {stock / mine:.1f} times better ({tuned / mine:.1f} times where stock's "
    )
    words += "`get()` looks every 10 ms)"
    return Measured(words, mine <= 10 and stock / mine >= 5, mine <= 5 and stock / mine >= 5)


def _rate(results: Results) -> Measured:
    mine, stock = _beside(results, "throughput", "1 client", "full cycles per second", max)
    words = f"{mine:.0f}, {mine / stock:.1f} times better"
    return Measured(words, mine >= 200 and mine / stock >= 10, mine >= 500 and mine / stock >= 10)


def _submit(results: Results) -> Measured:
    mine = results.ours("latency", "One at a time", "submit alone p50")
    return Measured(f"{mine:.1f} ms", mine <= 4, mine <= 2)


def _waiters(results: Results) -> Measured:
    most = results.ours("waiters", "1000", CONNECTIONS)
    failed = results.ours("waiters", "1000", "waiters failed")
    good = most <= 2 * POOL and not failed
    return Measured(f"{most:.0f}, {failed:.0f} waiters failed", good, good)


def _cpu(results: Results) -> Measured:
    mine, stock = _beside(results, "throughput", "1 client", CPU_OF_WORKERS, min)
    share = mine / stock
    return Measured(f"{mine:.1f} s, {share:.2f} of stock's", share <= 1 / 2, share <= 1 / 3)


def _hints(results: Results) -> Measured:
    lost = results.row("hints-lost", "1000", "the same, in intervals")[1] or 0.0
    return Measured(f"{lost:.2f} of an interval", lost <= 1, lost <= 1)


def _added_to_a_call(results: Results) -> Measured:
    mine = results.ours("gateway", "One at a time", "added to a call, p50")
    return _with_litellm(results, "added to a call, p50", mine, mine <= 20, mine <= 8)


def _added_to_the_first_token(results: Results) -> Measured:
    mine = results.ours("gateway", "One at a time", "added to first token, p50")
    return _with_litellm(results, "added to first token, p50", mine, mine <= 16, mine <= 8)


def _with_litellm(results: Results, row: str, mine: float, least: bool, aim: bool) -> Measured:
    other = results.row("gateway", "One at a time", row)[1]
    return Measured(f"{mine:.1f} ms (LiteLLM {other:.1f} ms)", least, aim)


def _callers(results: Results) -> Measured:
    mine, other, *_ = results.row("gateway", "64 callers", "calls per second")
    assert mine is not None
    return Measured(f"{mine:.0f} (LiteLLM {other:.0f})", mine >= 100, mine >= 250)


def _thousand(results: Results) -> Measured:
    seconds, other, *_ = results.row("gateway", "1000 calls", "first sent → last in hand")
    memory = results.ours("gateway", "1000 calls", "memory of the LLM worker, of LiteLLM")
    failed = results.ours("gateway", "1000 calls", "failed")
    assert seconds is not None
    words = f"{seconds:.1f} s, {memory:.0f} MB, {failed:.0f} failures (LiteLLM {other:.1f} s)"
    good = memory <= 250 and not failed
    return Measured(words, good and seconds <= 6, good and seconds <= 3)


def _connections(results: Results) -> Measured:
    most = results.ours("gateway", "64 callers", CONNECTIONS)
    good = most <= POOL * GATEWAY_PROCESSES
    return Measured(f"{most:.0f}", good, good)


def _streams(results: Results) -> Measured:
    added = results.ours("streams", "100 streams", ADDED)
    faults = sum(results.ours("streams", "100 streams", n) for n in (STORED_FAULTS, SEEN_FAULTS))
    words = f"{added:.0f} ms, {faults:.0f} faults"
    return Measured(words, added <= 50 and not faults, added <= 25 and not faults)


def _events(results: Results) -> Measured:
    rates = results.row("streams", "Highest rate", WORKER_RATE)
    most = max(rate for rate in rates if rate is not None)
    return Measured(f"{most:,.0f} per second", most >= 3_000, most >= 10_000)


def _beside(
    results: Results, scenario: str, table: str, row: str, best: Callable[..., float]
) -> tuple[float, float]:
    """Ours and the better of stock's two."""
    mine, *stock = results.row(scenario, table, row)
    there = [value for value in stock if value is not None]
    if mine is None or not there:
        raise Missing(row)
    return mine, best(there)


TARGETS = (
    Target(
        "full cycle, submit → envelope in hand, p50; beside the better of stock's two pools, "
        "with `get()` as documented",
        "10 ms and 5 times better",
        "5 ms",
        _cycle,
    ),
    Target(
        "full cycles per second, one client process; beside the better of stock's two pools",
        "200 and 10 times better",
        "500",
        _rate,
    ),
    Target("submit alone (row committed, message confirmed), p50", "4 ms", "2 ms", _submit),
    Target(
        "1000 waiters, PostgreSQL connections of client and worker",
        f"the pools' size: {2 * POOL}",
        "the same",
        _waiters,
    ),
    Target(
        "CPU seconds per 1000 full cycles, all worker processes",
        "half of stock's",
        "a third",
        _cpu,
    ),
    Target(
        "hint dropped for every result: last result final → last waiter done",
        "one fallback interval",
        "the same",
        _hints,
    ),
    Target("a generation, added to a direct call, p50", "20 ms", "8 ms", _added_to_a_call),
    Target(
        "a generation, added to the first token, p50", "16 ms", "8 ms", _added_to_the_first_token
    ),
    Target("generations per second, 64 callers", "100", "250", _callers),
    Target(
        "1000 calls of 2 s at once, one LLM worker process",
        "6 s, 250 MB, 0 failures",
        "3 s",
        _thousand,
    ),
    Target(
        "64 callers, PostgreSQL connections of all processes",
        f"the pools' size: {POOL * GATEWAY_PROCESSES}",
        "the same",
        _connections,
    ),
    Target(
        "100 streams of 20 tokens per second: added to the first token, p50; events with a fault",
        "50 ms, none",
        "25 ms",
        _streams,
    ),
    Target(
        "highest steady event rate of one LLM worker process", "3,000", "10,000 per second", _events
    ),
)
