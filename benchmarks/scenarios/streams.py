"""A hundred streams of 20 tokens per second through one LLM worker, and its highest rate of events.

A stream starts every 0.1 s and lasts 10 s, so that a hundred are under way at a time; those that start
before that don't count. Ours and direct calls take turns in two rounds, by the same schedule; what is
added to the first token is the difference between the medians. Every event is looked up afterwards: in
order, without a gap, none twice.

The highest rate is that of a worker process whose provider sends as fast as it is read, by what
PostgreSQL has between a fifth and four fifths of all events. The writer's own is that of a process that
hands its streams' events over by itself.
"""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any, Self

from benchmarks.bench import Bench, Running, add_costs, costs_of, running
from benchmarks.clients import clients
from benchmarks.figures import Bars, Report, Table, percentile
from benchmarks.scenarios.llm_concurrency import GENERATE, OTHERS, add_chats, running_provider
from benchmarks.servers import Place
from benchmarks.sides import CONCURRENCY, ours, temporary_place, workers

INTERVAL = 0.05
TOKENS = 200
AT_ONCE = 100
ROUNDS = 2
#: Streams that are under way at once, for the highest rate.
STREAMS = (10, 100)
#: Seconds between two looks at how many events are stored, and for all of them to be.
LOOK, PATIENCE = 0.25, 300.0

#: Rows that are looked up by name.
ADDED = "added to the first token, p50"
STORED_FAULTS, SEEN_FAULTS = "stored with a fault", "seen with a fault"
WORKER_RATE = "one LLM worker process: events stored per second"

#: The rows of a stream must join on from 1; the texts of its deltas must be the message's.
_FAULTS = """
    WITH rows AS (
        SELECT instruction_id, first, last, events,
               lag(last, 1, 0) OVER (PARTITION BY instruction_id ORDER BY first) AS before
          FROM events
    ), texts AS (
        SELECT instruction_id,
               string_agg(e.item->>'text', '' ORDER BY first, e.n) AS text,
               bool_or(first <> before + 1 OR last - first + 1 <> jsonb_array_length(events)) AS torn
          FROM rows, jsonb_array_elements(events) WITH ORDINALITY AS e (item, n)
         GROUP BY instruction_id
    )
    SELECT count(*), count(*) FILTER (WHERE torn OR texts.text IS DISTINCT FROM m.content)
      FROM texts JOIN messages m USING (instruction_id) WHERE m.role = 'assistant'
"""

#: Where the time until the first token goes, by PostgreSQL's clock, in seconds.
_STEPS = """
    SELECT EXTRACT(epoch FROM i.decoded_at - i.submitted_at)::float8,
           EXTRACT(epoch FROM a.started_at - i.decoded_at)::float8,
           EXTRACT(epoch FROM a.first_delta_at - a.started_at)::float8
      FROM instructions i JOIN attempts a ON a.instruction_id = i.id
     ORDER BY i.seq
"""


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    with ExitStack() as stack:
        place = stack.enter_context(temporary_place(bench.servers, "streams"))
        streams, raw = _first_tokens(bench, place)
        found = [_worker_rate(bench, number) for number in STREAMS]
        written = _writer_rates(bench, place)
    rates = Table("Highest rate", tuple(f"{n} streams" for n in STREAMS), ratios=False)
    rates.add(WORKER_RATE, "/s", [f["rate"] for f in found], "higher")
    rates.add("CPU of the LLM worker per 1000 events", "ms", [f["llm_cpu"] for f in found])
    rates.add("memory of the LLM worker", "MB", [f["memory"] for f in found])
    rates.add("CPU of PostgreSQL per 1000 events", "ms", [f["postgresql_cpu"] for f in found])
    rates.add("PostgreSQL connections, most", "", [f["connections"] for f in found])
    rates.add("streams stored with a fault", "", [f["faults"] for f in found], "plain")
    rates.add("the writer alone: events per second", "/s", [w["rate"] for w in written], "higher")
    rates.add("the writer alone: CPU per 1000 events", "ms", [w["cpu"] for w in written])
    report = Report([streams, rates], raw=raw | {"rates": found, "writer": written})
    added = percentile(raw["firsts"][0], 0.5) - percentile(raw["firsts"][1], 0.5)
    report.plots = [
        Bars("added to the first token, p50", "ms", (("ours", added * 1000),)),
        *(
            Bars(f"events per second, {what}", "/s", tuple(zip(rates.columns, values, strict=True)))
            for what, values in (
                ("one LLM worker process", [f["rate"] for f in found]),
                ("the writer alone", [w["rate"] for w in written]),
            )
        ),
    ]
    faults = raw["faults"] + sum(f["faults"] for f in found)
    if faults or raw["bad"]:
        report.failures = [
            f"{faults} streams are stored with a fault, {raw['bad']} were seen with one"
        ]
    return report


def _first_tokens(bench: Bench, place: Place) -> tuple[Table, dict[str, Any]]:
    rounds, count = (1 if bench.quick else ROUNDS), 2 * AT_ONCE
    order = {"interval": INTERVAL * TOKENS / AT_ONCE}
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    firsts: list[list[float]] = [[], []]
    with ExitStack() as stack:
        url = stack.enter_context(running_provider(INTERVAL, TOKENS))
        datas = add_chats(place, url, count * rounds)
        up = _started(stack, bench, place, 2 * AT_ONCE)
        llm_cpu = 0.0
        for number in range(rounds):
            bench.step(f"streams: round {number + 1} of {rounds}, {count} direct ones, then ours")
            some = datas[number * count : (number + 1) * count]
            plain = up.clients[0].ask("direct-streams", datas=some, url=url, **order)["streams"]
            before = up.workers[0].cpu()
            up.start_meter()
            mine = up.clients[0].ask("streams", datas=some, **order)["streams"]
            up.stop_meter(count)
            llm_cpu += up.workers[0].cpu() - before
            for side, first, found in zip(sides, firsts, (mine, plain), strict=True):
                side.extend(found)
                first += [s["first"] for s in found[AT_ONCE:] if s["first"] is not None]
        stored, faults = place.sql(_FAULTS)[0]
        resident, costs = up.workers[0].resident(), costs_of(up)
        rows = place.sql(_STEPS)
    counted = [row for number, row in enumerate(rows) if number % count >= AT_ONCE]
    total = count * rounds
    bad = sum(not item["good"] or item["tokens"] != TOKENS for item in sides[0])
    table = Table(f"{AT_ONCE} streams of {1 / INTERVAL:g} tokens/s at a time", ("ours", "direct"))
    table.add_percentiles("first token", firsts)
    added = percentile(firsts[0], 0.5) - percentile(firsts[1], 0.5)
    table.add(ADDED, "ms", [added * 1000, None])
    for name, taken in zip(
        ("submitted → decoded", "decoded → the call", "the call → first token stored"),
        zip(*counted, strict=True),
        strict=True,
    ):
        table.add(f"{name}, p50", "ms", [percentile(taken, 0.5) * 1000, None])
    table.add("streams stored", "", [stored, None], "plain")
    table.add(STORED_FAULTS, "", [faults + total - stored, None], "plain")
    table.add(SEEN_FAULTS, "", [bad, None], "plain")
    per_thousand = llm_cpu * 1000 / total / TOKENS
    table.add("CPU of the LLM worker per 1000 tokens", "s", [per_thousand, None])
    table.add("memory of the LLM worker", "MB", [resident, None])
    add_costs(table, [costs, None])
    return table, {"firsts": firsts, "faults": faults + total - stored, "bad": bad}


def _started(stack: ExitStack, bench: Bench, place: Place, slots: int) -> Running:
    """A client, the LLM worker and the other one, which have done something already."""
    side = ours(place)
    up = running(stack, bench, side)
    for queues, concurrency in (((GENERATE,), slots), (OTHERS, CONCURRENCY)):
        up.workers += stack.enter_context(
            workers(side, bench.directory, queues=queues, concurrency=concurrency)
        )
    up.clients[0].ask("burst", count=3, type="USER_LIST")
    return up


def _worker_rate(bench: Bench, number: int) -> dict[str, Any]:
    """Events per second of so many streams through one LLM worker process."""
    total = 50_000 if bench.quick else 200_000
    bench.step(f"streams: {total} events of {number} streams through a worker")
    with ExitStack() as stack:
        url = stack.enter_context(running_provider(0.0, total // number))
        place = stack.enter_context(temporary_place(bench.servers, f"streams-{number}"))
        datas = add_chats(place, url, number)
        up = _started(stack, bench, place, number)
        stored = stack.enter_context(StoredEvents(place))
        before = up.workers[0].cpu()
        up.start_meter()
        order = {"type": "LLM_RESPONSE_GENERATE", "datas": datas, "timeout": PATIENCE}
        answer = up.clients[0].ask("burst", count=number, threads=min(4, number), **order)
        up.stop_meter(number)
        whole, faults = place.sql(_FAULTS)[0]
        return {
            "rate": stored.rate(total),
            "looks": stored.looks,
            "llm_cpu": (up.workers[0].cpu() - before) * 1e6 / total,
            "postgresql_cpu": up.server_cpu["postgresql"] * 1e6 / total,
            "memory": up.workers[0].resident(),
            "connections": up.sampler.most,
            "faults": faults + number - whole,
            "failures": answer["failures"],
        }


class StoredEvents:
    """Looks again and again at how many events are stored, while it is open."""

    def __init__(self, place: Place) -> None:
        #: Moments and numbers of events.
        self.looks: list[tuple[float, int]] = []
        self._place = place
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stored events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def rate(self, total: int) -> float:
        """Per second, between a fifth and four fifths of ``total``; what is short of it is none."""
        inner = [look for look in self.looks if total / 5 <= look[1] <= total * 4 / 5]
        if len(inner) < 2:
            raise ValueError(f"Only {len(inner)} looks fell into the steady part: more events.")
        (began, first), (ended, last) = inner[0], inner[-1]
        return (last - first) / (ended - began)

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            ((count,),) = self._place.sql("SELECT coalesce(sum(last - first + 1), 0) FROM events")
            self.looks.append((time.monotonic(), int(count)))


def _writer_rates(bench: Bench, place: Place) -> list[dict[str, Any]]:
    count = 50_000 if bench.quick else 100_000
    found = []
    with clients(ours(place), bench.directory) as (client,):
        for number in STREAMS:
            bench.step(f"streams: {count} events of {number} streams by a writer alone")
            attempts = _claimed(place, number)
            told = client.ask("event-rate", attempts=attempts, count=count, followers=[])
            found.append(
                {"rate": count / told["seconds"], "cpu": told["cpu"] * 1e6 / count, "told": told}
            )
    return found


def _claimed(place: Place, count: int) -> list[tuple[str, int]]:
    """Rows as a claim leaves them."""
    place.sql("TRUNCATE events, attempts")
    place.sql("DELETE FROM instructions")
    place.sql(
        """
        INSERT INTO instructions (id, type, state, data, deadline_at)
        SELECT CAST(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000' AS uuid),
               'LLM_RESPONSE_GENERATE', 'decoded', '{}', now() + interval '1 hour'
          FROM generate_series(1, %s) n
        """,
        count,
    )
    place.sql(
        """
        INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)
        SELECT id, 1, 'none', 'none', 'none', now() + interval '1 hour' FROM instructions
        """
    )
    place.vacuum()
    return [
        tuple(row) for row in place.sql("SELECT CAST(instruction_id AS text), id FROM attempts")
    ]
