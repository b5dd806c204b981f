"""A thousand generations of 2 s at once: one worker process for ``llm.generate``, one for the rest.

Each is the first turn of a chat of its own. With all of them in flight at once the calls take 2 s
together; what is above that is the cycle's. PostgreSQL allows 100 connections, as it comes.

Each side has the machine to itself and is measured once: two sets of a thousand calls under way at once
would measure each other.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import provider, stock
from benchmarks.bench import Bench, Costs, add_costs, costs_of, running
from benchmarks.figures import Bars, Report, Table
from benchmarks.servers import Place
from benchmarks.sides import (
    CONCURRENCY,
    ROOT,
    Side,
    ours,
    stock_celery,
    temporary_place,
    workers,
)

DELAY = 2.0
#: Seconds for all together.
TIMEOUT = 60.0
#: Client processes, as front-ends have more than one, and the threads of each that submit and collect.
#: More of them take longer for the whole: the cores are busy, and stock's each have a connection.
PROCESSES, THREADS = 4, 4
GENERATE = "llm.generate"
OTHERS = ("control", "user", "chat", "llm", "database")
STOCK_OTHERS = ("control", "user", "database")


@contextmanager
def running_provider(delay: float, tokens: int = 0) -> Iterator[str]:
    """A provider in a process of its own; yields its base URL. See ``benchmarks/provider.py``."""
    command = [sys.executable, "-m", "benchmarks.provider", "--delay", str(delay)]
    process = subprocess.Popen(
        [*command, "--tokens", str(tokens)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield f"http://{provider.HOST}:{int(process.stdout.readline())}/v1"
    finally:
        process.terminate()
        process.wait()


def add_chats(place: Place, url: str, count: int) -> list[dict[str, Any]]:
    """A provider, an LLM and ``count`` chats of one user; the data of a generation in each."""
    place.sql("INSERT INTO providers (name, api_endpoint, kind) VALUES ('load', %s, 'openai')", url)
    place.sql("INSERT INTO llms (provider_id, llm_name) SELECT id, 'echo' FROM providers")
    place.sql("INSERT INTO chats (title) SELECT 'chat ' || n FROM generate_series(1, %s) n", count)
    place.sql("INSERT INTO chat_members (chat_id, user_id) SELECT id, 1 FROM chats")
    place.vacuum()
    ids = place.sql("SELECT id FROM chats ORDER BY id")
    shared = {"user_id": 1, "llm_id": 1, "user_input": "Say something."}
    return [{"chat_id": chat_id} | shared for (chat_id,) in ids]


@dataclass
class Outcome:
    """``seconds``: from the first submission to the last answer in hand; ``times``: of each."""

    seconds: float | None
    submitting: float
    times: list[float]
    failures: dict[str, int]
    llm_memory: float
    other_memory: float
    costs: Costs

    @property
    def failed(self) -> int:
        """How many."""
        return sum(self.failures.values())


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    count = 100 if bench.quick else 1000
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        url = stack.enter_context(running_provider(DELAY))
        places = [
            stack.enter_context(temporary_place(bench.servers, f"llm-{name}"))
            for name in ("ours", "stock")
        ]
        sides = [ours(places[0]), stock_celery(places[1], **{stock.PROVIDER_URL: url})]
        for side, others in zip(sides, (OTHERS, STOCK_OTHERS), strict=True):
            bench.step(f"llm-concurrency: {count} generations of {side.name}")
            datas = add_chats(side.place, url, count)
            outcomes.append(generate(bench, side, others, datas))
    table = Table(f"{count} generations of {DELAY:g} s", tuple(side.name for side in sides))
    table.add("done", "", [len(o.times) for o in outcomes], "plain")
    table.add("failed", "", [o.failed for o in outcomes], "plain")
    table.add("first submitted → last in hand", "s", [o.seconds for o in outcomes])
    table.add("submitting", "s", [o.submitting for o in outcomes])
    table.add_percentiles("submit → answer", [o.times for o in outcomes])
    table.add("memory of the LLM worker", "MB", [o.llm_memory for o in outcomes])
    table.add("memory of the other worker", "MB", [o.other_memory for o in outcomes])
    add_costs(table, [o.costs for o in outcomes])
    report = Report([table], raw={s.name: asdict(o) for s, o in zip(sides, outcomes, strict=True)})
    report.notes = [
        f"{side.name}: {outcome.failures}"
        for side, outcome in zip(sides, outcomes, strict=True)
        if outcome.failures
    ]
    seconds = [(s.name, o.seconds) for s, o in zip(sides, outcomes, strict=True)]
    bars = tuple((name, value) for name, value in seconds if value is not None)
    done = tuple((s.name, float(len(o.times))) for s, o in zip(sides, outcomes, strict=True))
    report.plots = [
        Bars(f"{count} generations of {DELAY:g} s", "s", bars),
        Bars(f"done within {TIMEOUT:g} s, of {count}", "", done),
    ]
    if outcomes[0].failed:
        report.failures = [f"ours: {outcomes[0].failed} of {count} generations failed"]
    return report


def generate(
    bench: Bench, side: Side, others: tuple[str, ...], datas: list[dict[str, Any]]
) -> Outcome:
    """A generation for each of ``datas``, all at once: what it took, and what it cost."""
    count = len(datas)
    with ExitStack() as stack:
        up = running(stack, bench, side, PROCESSES)
        for queues, slots in (((GENERATE,), count), (others, CONCURRENCY)):
            up.workers += stack.enter_context(
                workers(side, bench.directory, queues=queues, concurrency=slots)
            )
        up.start_meter()
        for number, client in enumerate(up.clients):
            mine = datas[number::PROCESSES]
            order = {"type": "LLM_RESPONSE_GENERATE", "datas": mine, "timeout": TIMEOUT}
            client.send("burst", count=len(mine), threads=THREADS, **order)
        answers = [client.receive(2 * TIMEOUT) for client in up.clients]
        times = [seconds for answer in answers for seconds in answer["times"]]
        up.stop_meter(max(1, len(times)))
        failures: Counter[str] = Counter()
        for answer in answers:
            failures.update(answer["failures"])
        began = min(answer["began"] for answer in answers)
        return Outcome(
            # Timed-out waits would be most of it.
            seconds=None if failures else max(a["ended"] for a in answers) - began,
            submitting=max(a["began"] + a["submitted"] for a in answers) - began,
            times=times,
            failures=dict(failures),
            llm_memory=up.workers[0].resident(),
            other_memory=up.workers[1].resident(),
            costs=costs_of(up),
        )
