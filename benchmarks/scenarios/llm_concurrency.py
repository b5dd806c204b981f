"""A thousand generations of 2 s at once: one worker process for ``llm.generate``, one for the rest.

Each is the first turn of a chat of its own. With all of them in flight at once the calls take 2 s
together; what is above that is the cycle's. PostgreSQL allows 100 connections, as it comes.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from benchmarks import provider, stock
from benchmarks.bench import Bench
from benchmarks.clients import ClientFailed, clients
from benchmarks.figures import Bars, Report, Table
from benchmarks.servers import ConnectionSampler, Place
from benchmarks.sides import ROOT, Side, Worker, ours, stock_celery, temporary_place, workers

DELAY = 2.0
TIMEOUT = 120.0
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


def run(bench: Bench) -> Report:
    """See the module's docstring. Each side has the machine to itself, one after the other."""
    count = 100 if bench.quick else 1000
    outcomes: list[dict[str, Any]] = []
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
    table.add("done", "", [o["done"] for o in outcomes], "plain")
    table.add("failed", "", [o["failed"] for o in outcomes], "plain")
    table.add("first submitted → last in hand", "s", [o["seconds"] for o in outcomes])
    table.add("submitting", "s", [o["submitted"] for o in outcomes])
    table.add("memory of the llm worker", "MB", [o["llm_memory"] for o in outcomes])
    table.add("memory of the other worker", "MB", [o["other_memory"] for o in outcomes])
    table.add("CPU of both workers", "s", [o["cpu"] for o in outcomes])
    table.add("PostgreSQL connections, most", "", [o["connections"] for o in outcomes])
    report = Report([table], raw={s.name: o for s, o in zip(sides, outcomes, strict=True)})
    report.notes = [
        f"{side.name}: {outcome['failures']}"
        for side, outcome in zip(sides, outcomes, strict=True)
        if outcome["failures"]
    ]
    seconds = [(s.name, o["seconds"]) for s, o in zip(sides, outcomes, strict=True)]
    bars = tuple((name, value) for name, value in seconds if value is not None)
    report.plots = [Bars(f"{count} generations of {DELAY:g} s", "s", bars)]
    if outcomes[0]["failed"]:
        report.failures = [f"ours: {outcomes[0]['failed']} of {count} generations failed"]
    return report


def generate(
    bench: Bench, side: Side, others: tuple[str, ...], datas: list[dict[str, Any]]
) -> dict[str, Any]:
    """A generation for each of ``datas``, all at once: what it took, and what it cost."""
    count = len(datas)
    with ExitStack() as stack:
        started: list[Worker] = []
        for queues, slots in (((GENERATE,), count), (others, 8)):
            up = workers(side, bench.directory, queues=queues, concurrency=slots)
            started += stack.enter_context(up)
        (client,) = stack.enter_context(clients(side, bench.directory))
        sampler = stack.enter_context(ConnectionSampler(side.place))
        before = sum(worker.cpu() for worker in started)
        client.send(
            "burst", count=count, type="LLM_RESPONSE_GENERATE", datas=datas, timeout=TIMEOUT
        )
        answer: dict[str, Any]
        try:
            answer = client.receive(2 * TIMEOUT)
        except ClientFailed as error:
            answer = {"failures": {str(error): count}, "seconds": None, "submitted": None}
        failed = sum(answer["failures"].values())
        return {
            "done": count - failed,
            "failed": failed,
            "failures": answer["failures"],
            # Timed-out waits would be most of it.
            "seconds": None if failed else answer["seconds"],
            "submitted": answer["submitted"],
            "llm_memory": started[0].resident(),
            "other_memory": started[1].resident(),
            "cpu": sum(worker.cpu() for worker in started) - before,
            "connections": sampler.most,
        }
