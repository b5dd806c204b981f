"""The scenarios, in the order in which they run: a row each."""

from __future__ import annotations

from faults.scenario import Scenario

from . import broker, cancels, junk, kill_workers, messages, poison, postgres, provider, soak, stops

_MODULES = (kill_workers, stops, broker, postgres, messages, cancels, junk, provider, poison, soak)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for module in _MODULES for scenario in module.SCENARIOS
}
