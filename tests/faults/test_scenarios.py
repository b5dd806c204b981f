"""A short round of each fault scenario. ``make faults`` does all rounds."""

from __future__ import annotations

import pytest

from faults.plan import Size
from faults.scenario import run_round
from faults.scenarios import SCENARIOS
from faults.world import World

SEED = 1
SHORT = Size(chats=2, turns=2, ordinary=4, spread=1.0)
#: Poison and a wrong clock need workers of their own (for the former: tests/acceptance/test_poison.py).
#: An orderly restart takes twice as long as a kill, and asks for less.
LONG = ("poison", "clock", "broker-restart", "soak")
NAMES = [name for name in SCENARIOS if name not in LONG]


@pytest.mark.parametrize("name", NAMES)
def test_every_promise_is_kept(world: World, name: str) -> None:
    scenario = SCENARIOS[name]
    with scenario.beside(world) as world.beside:
        verdict = run_round(scenario, world, SEED, 0, SHORT).verdict
    assert verdict.breaches == []
    assert verdict.accepted == 8
