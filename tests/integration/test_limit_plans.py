"""A limit per minute costs what the last minute was, however long the ledger is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.db import driver
from llmchatlinker.units.limits import Limit
from tests.fixtures.scenes import Scene

#: Calls in the ledger: half of them of one user, one LLM and one provider, and few of the last minute.
CALLS = 20_000
LATELY = 200
#: Pages of an index and of the table that so many may be spread over.
PAGES = 3 * LATELY
_CALLS = """
    INSERT INTO attempts (instruction_id, number, user_id, llm_id, provider_id, provider_name,
                          llm_name, worker, status, started_at, lease_until)
    SELECT gen_random_uuid(), 1, CASE n % 2 WHEN 0 THEN :user END, CASE n % 2 WHEN 0 THEN :llm END,
           n % 2 + :provider, 'p', 'l', 'w', 'answered',
           clock_timestamp() - n * CASE WHEN n < :lately THEN interval '1 millisecond'
                                        ELSE interval '5 minutes' END,
           clock_timestamp()
      FROM generate_series(1, :calls) AS n
"""


@pytest.mark.parametrize("reason", ["user_rate", "user_rate of a provider", "rate", "llm_rate"])
def test_no_limit_per_minute_reads_older_calls(scene: Scene, reason: str) -> None:
    user, llm, provider = scene.user_id, scene.llm_id, scene.provider_id
    limit = {
        "user_rate": Limit("user_rate", CALLS, user_id=user),
        "user_rate of a provider": Limit("user_rate", CALLS, provider_id=provider, user_id=user),
        "rate": Limit("rate", CALLS, provider_id=provider),
        "llm_rate": Limit("llm_rate", CALLS, provider_id=provider, llm_id=llm),
    }[reason]
    values = {"user": user, "llm": llm, "provider": provider, "calls": CALLS, "lately": LATELY}
    with Session(scene.cycle.database.engine) as session, session.begin():
        session.execute(text(_CALLS), values)
    with Session(scene.cycle.database.engine) as session, session.begin():
        session.execute(text("ANALYZE attempts"))
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {limit.statement()}"
        plan = session.connection().exec_driver_sql(explain, limit.values).scalar()
        room = limit.look(driver.within(session))[0]

    assert room == CALLS - (LATELY // 2 - 1)
    scans = [node for node in _nodes(plan) if "attempts" in node.get("Relation Name", "")]
    assert len(scans) == 2
    assert [node for node in scans if node["Node Type"] == "Seq Scan"] == []
    assert sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"] for node in scans) < PAGES


def _nodes(plan: Any) -> Iterator[dict[str, Any]]:
    plan = json.loads(plan) if isinstance(plan, str) else plan
    for node in [plan[0]["Plan"]] if isinstance(plan, list) else plan.get("Plans", []):
        yield node
        yield from _nodes(node)
