"""A hundred streams of 20 tokens per second through one LLM worker process, and a writer's highest rate.

A stream starts every 0.1 s and lasts 10 s, so that a hundred are under way at a time; those that start
before that don't count. What is added to the first token is the difference between the medians of
ours and of the same schedule of direct calls. Every event is looked up afterwards: in order, without a
gap, none twice. The rate is one process's whose streams are fed as fast as the writer can take it.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.clients import clients
from benchmarks.figures import Report, Table, percentile
from benchmarks.scenarios.llm_concurrency import GENERATE, OTHERS, add_chats, running_provider
from benchmarks.servers import ConnectionSampler, Place
from benchmarks.sides import ours, temporary_place, workers

INTERVAL = 0.05
TOKENS = 200
AT_ONCE = 100
WRITERS = (10, 100, 1000)

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
        rates = _rates(bench, place)
    report = Report([streams, rates], raw=raw)
    if raw["faults"] or raw["bad"]:
        report.failures = [
            f"{raw['faults']} streams are stored with a fault, {raw['bad']} were seen with one"
        ]
    return report


def _first_tokens(bench: Bench, place: Place) -> tuple[Table, dict[str, Any]]:
    count = AT_ONCE * (3 if bench.quick else 6)
    order = {"interval": INTERVAL * TOKENS / AT_ONCE}
    with ExitStack() as stack:
        url = stack.enter_context(running_provider(INTERVAL, TOKENS))
        side = ours(place)
        datas = add_chats(place, url, count)
        llm = stack.enter_context(
            workers(side, bench.directory, queues=(GENERATE,), concurrency=2 * AT_ONCE)
        )[0]
        stack.enter_context(workers(side, bench.directory, queues=OTHERS))
        (client,) = stack.enter_context(clients(side, bench.directory))
        client.ask("burst", count=3, type="USER_LIST")
        bench.step(f"streams: {count} direct ones")
        plain = client.ask("direct-streams", datas=datas, url=url, **order)["streams"]
        bench.step(f"streams: {count} of ours")
        sampler = stack.enter_context(ConnectionSampler(place))
        before = llm.cpu()
        mine = client.ask("streams", datas=datas, **order)["streams"]
        used, resident = llm.cpu() - before, llm.resident()
        stored, faults = place.sql(_FAULTS)[0]
        steps = list(zip(*place.sql(_STEPS)[AT_ONCE:], strict=True))
    firsts = [
        [item["first"] for item in side[AT_ONCE:] if item["first"] is not None]
        for side in (mine, plain)
    ]
    bad = sum(not item["good"] or item["tokens"] != TOKENS for item in mine)
    table = Table(f"{AT_ONCE} streams of {1 / INTERVAL:g} tokens/s at a time", ("ours", "direct"))
    table.add_percentiles("first token", firsts)
    added = percentile(firsts[0], 0.5) - percentile(firsts[1], 0.5)
    table.add("added to the first token, p50", "ms", [added * 1000, None])
    for name, taken in zip(
        ("submitted → decoded", "decoded → the call", "the call → first token stored"),
        steps,
        strict=True,
    ):
        table.add(f"{name}, p50", "ms", [percentile(taken, 0.5) * 1000, None])
    table.add("streams stored", "", [stored, None], "plain")
    table.add("stored with a fault", "", [faults + count - stored, None], "plain")
    table.add("seen with a fault", "", [bad, None], "plain")
    table.add("CPU of the LLM worker per 1000 tokens", "s", [used * 1000 / count / TOKENS, None])
    table.add("memory of the LLM worker", "MB", [resident, None])
    table.add("PostgreSQL connections, most", "", [sampler.most, None])
    return table, {"firsts": firsts, "faults": faults + count - stored, "bad": bad}


def _rates(bench: Bench, place: Place) -> Table:
    count = 50_000 if bench.quick else 200_000
    table = Table("Highest rate of one writer", tuple(f"{n} streams" for n in WRITERS))
    results = []
    with ExitStack() as stack:
        (client,) = stack.enter_context(clients(ours(place), bench.directory))
        for number in WRITERS:
            bench.step(f"streams: {count} events of {number} streams")
            attempts = _claimed(place, number)
            results.append(client.ask("event-rate", attempts=attempts, count=count, followers=[]))
    table.add("events per second", "", [count / r["seconds"] for r in results], "higher")
    table.add("CPU per 1000 events", "s", [r["cpu"] * 1000 / count for r in results])
    return table


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
