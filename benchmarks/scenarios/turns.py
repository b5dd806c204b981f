"""Two hundred turns sent at once into one chat, and pairs of turns that race in one, of each policy.

With ``enqueue`` all are answered, in the order of submission, one at a time; with the others whatever
the policy says becomes of them, and never two at a time. The ledger says so: of a chat no call may begin
before the one before it has ended. The provider speaks five words in 10 ms.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.clients import Client, clients
from benchmarks.figures import Report, Table
from benchmarks.scenarios.llm_concurrency import GENERATE, OTHERS, add_chats, running_provider
from benchmarks.servers import Place
from benchmarks.sides import ours, temporary_place, workers

DELAY = 0.002
TOKENS = 5
SLOTS = 16
POLICIES = ("enqueue", "reject", "interrupt", "rollback")

#: Of each chat: its calls, those that began before the one before had ended, and those out of order.
_CALLS = """
    WITH calls AS (
        SELECT i.chat_id, i.seq, a.id, a.started_at,
               lag(a.finished_at) OVER chat AS before, lag(i.seq) OVER chat AS seq_before
          FROM attempts a JOIN instructions i ON i.id = a.instruction_id
        WINDOW chat AS (PARTITION BY i.chat_id ORDER BY a.id)
    )
    SELECT chat_id, count(*), count(*) FILTER (WHERE started_at < before),
           count(*) FILTER (WHERE seq < seq_before)
      FROM calls GROUP BY chat_id
"""


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    turns, pairs = (50, 10) if bench.quick else (200, 50)
    with ExitStack() as stack:
        place = stack.enter_context(temporary_place(bench.servers, "turns"))
        url = stack.enter_context(running_provider(DELAY, TOKENS))
        side = ours(place)
        datas = add_chats(place, url, 1 + len(POLICIES))
        stack.enter_context(workers(side, bench.directory, queues=(GENERATE,), concurrency=SLOTS))
        stack.enter_context(workers(side, bench.directory, queues=OTHERS))
        (client,) = stack.enter_context(clients(side, bench.directory))
        client.ask("burst", count=3, type="USER_LIST")
        bench.step(f"turns: {turns} at once in one chat")
        burst = client.ask("burst", count=turns, type="LLM_RESPONSE_GENERATE", datas=datas[:1])
        raced = [
            _race(bench, client, data, policy, pairs)
            for data, policy in zip(datas[1:], POLICIES, strict=True)
        ]
        calls = _calls(place)
    found = [calls.get(data["chat_id"], (0, 0, 0)) for data in datas]
    answered = turns - sum(burst["failures"].values())
    table = Table(f"{turns} turns at once, and {pairs} pairs", ("at once", *POLICIES), ratios=False)
    sent = [turns, *[2 * pairs] * len(POLICIES)]
    seconds = [burst["seconds"], *[race["seconds"] for race in raced]]
    table.add("turns per second", "", [n / s for n, s in zip(sent, seconds, strict=True)], "higher")
    done = [answered, *[race["codes"].get("answered", 0) for race in raced]]
    table.add("answered", "", done, "plain")
    table.add("calls of the provider", "", [calls for calls, _, _ in found], "plain")
    table.add("two at a time", "", [two for _, two, _ in found], "plain")
    table.add("out of order", "", [late for _, _, late in found], "plain")
    report = Report([table], raw={"codes": [burst["failures"], *[r["codes"] for r in raced]]})
    if answered != turns or done[1] != 2 * pairs:
        report.failures.append("not every turn that waits for its chat was answered")
    if any(sum(race["codes"].values()) != 2 * pairs for race in raced):
        report.failures.append("not every turn came to an end")
    if any(two or late for _, two, late in found):
        report.failures.append("two turns of a chat were active at a time, or out of order")
    return report


def _race(
    bench: Bench, client: Client, data: dict[str, Any], policy: str, count: int
) -> dict[str, Any]:
    bench.step(f"turns: {count} racing pairs, {policy}")
    return client.ask("pairs", data=data | {"turn_policy": policy}, count=count)


def _calls(place: Place) -> dict[int, tuple[int, int, int]]:
    return {row[0]: (row[1], row[2], row[3]) for row in place.sql(_CALLS)}
