"""No statement of the hot path or of the sweeper reads the whole of a table that grows with use."""

from __future__ import annotations

from benchmarks.scenarios.plans import look
from llmchatlinker.settings import get_settings
from tests.fixtures.cycles import Cycle


def test_every_statement_has_an_index(cycle: Cycle) -> None:
    cycle.do("USER_CREATE", username="ada")
    url = cycle.database.engine.url
    # Small tables are read as a whole for being small. Forbidden, it shows where there is no index.
    cycle.sql(f'ALTER DATABASE "{url.database}" SET enable_seqscan = off')

    plans = look(get_settings().database_url)

    assert len(plans) > 15
    assert [name for name, plan in plans.items() if not plan.statements] == []
    assert {name: plan.whole for name, plan in plans.items() if plan.whole} == {}
