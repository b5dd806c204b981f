"""The scenarios, in the order in which they run: a row each."""

from __future__ import annotations

from faults.scenario import Scenario
from faults.scenarios.disks import DiskScenario

from . import (
    broker,
    cancels,
    clock,
    disks,
    junk,
    kill_workers,
    messages,
    poison,
    postgres,
    provider,
    soak,
    stops,
)

_MODULES = (
    kill_workers,
    stops,
    broker,
    postgres,
    messages,
    cancels,
    junk,
    provider,
    poison,
    clock,
    soak,
)

#: Those that take servers and workers, and may share them.
SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for module in _MODULES for scenario in module.SCENARIOS
}
ALL: dict[str, Scenario | DiskScenario] = {
    **SCENARIOS,
    **{scenario.name: scenario for scenario in disks.SCENARIOS},
}
