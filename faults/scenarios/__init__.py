"""The scenarios, in the order in which they run: a row each."""

from __future__ import annotations

from faults.scenario import Scenario

from . import kill_workers

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*kill_workers.SCENARIOS,)
}
