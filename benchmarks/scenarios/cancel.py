"""From LLM_RESPONSE_CANCEL to the end of the connection to the provider, which is to take 0.5 s at most.

Turns are cancelled one after the other, at any moment after their first delta; once with nothing else
going on, and once beside a hundred streams of 20 tokens per second through the same worker process. The
provider notes when it sees its connection closed.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from benchmarks.bench import Bench
from benchmarks.clients import Client, clients
from benchmarks.closings import Closings, closings
from benchmarks.figures import Report, Table, percentile
from benchmarks.scenarios.llm_concurrency import GENERATE, OTHERS, add_chats
from benchmarks.servers import Place
from benchmarks.sides import ours, temporary_place, workers

INTERVAL = 0.05
AT_ONCE = 100
PROMISED = 0.5


def run(bench: Bench) -> Report:
    """See the module's docstring."""
    count = 20 if bench.quick else 100
    with ExitStack() as stack:
        place = stack.enter_context(temporary_place(bench.servers, "cancel"))
        provider = stack.enter_context(closings(INTERVAL))
        side = ours(place)
        datas = add_chats(place, provider.url, 2 * count + AT_ONCE)
        stack.enter_context(
            workers(side, bench.directory, queues=(GENERATE,), concurrency=2 * AT_ONCE)
        )
        stack.enter_context(workers(side, bench.directory, queues=OTHERS))
        client, other = stack.enter_context(clients(side, bench.directory, 2))
        client.ask("burst", count=3, type="USER_LIST")
        bench.step(f"cancel: {count} one after the other")
        idle = _cancel(client, provider, datas[:count])
        bench.step(f"cancel: {count} beside {AT_ONCE} streams")
        other.send("streams", datas=datas[2 * count :], interval=0.02)
        _wait(place, AT_ONCE)
        busy = _cancel(client, provider, datas[count : 2 * count])
        provider.finish()
        went_on = sum(item["good"] for item in other.receive()["streams"])
    table = Table(f"{count} cancels", ("idle", f"beside {AT_ONCE} streams"), ratios=False)
    for name, key in (("→ connection closed", "closed"), ("→ last event at its follower", "ended")):
        for label, share in (("p50", 0.5), ("p95", 0.95), ("most", 1.0)):
            values = [percentile(side_[key], share) * 1000 for side_ in (idle, busy)]
            table.add(f"{name}, {label}", "ms", values)
    table.add("cancelled", "", [idle["good"], busy["good"]], "plain")
    report = Report([table], raw={"idle": idle, "busy": busy})
    for found in (idle, busy):
        if found["good"] < count or len(found["closed"]) < count:
            report.failures.append(f"{count - found['good']} turns did not end as cancelled")
        if percentile(found["closed"], 0.95) > PROMISED:
            report.failures.append(f"cancels took longer than {PROMISED} s")
    if went_on < AT_ONCE:
        report.failures.append(f"{AT_ONCE - went_on} other streams did not come to their end")
    return report


def _wait(place: Place, count: int) -> None:
    """Until that many calls are under way."""
    query = "SELECT count(*) FROM attempts WHERE status = 'started' AND first_delta_at IS NOT NULL"
    while place.sql(query)[0][0] < count:
        time.sleep(0.1)


def _cancel(client: Client, provider: Closings, datas: list[dict[str, Any]]) -> dict[str, Any]:
    named = [data | {"user_input": f"chat {data['chat_id']}"} for data in datas]
    found = client.ask("cancels", datas=named)
    asked = {f"chat {chat_id}": moment for chat_id, moment in found["moments"]}
    closed = [provider.closed[name] - asked[name] for name in asked if name in provider.closed]
    return {"closed": closed, "ended": found["ended"], "good": found["good"]}
