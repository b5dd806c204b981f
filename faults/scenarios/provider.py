"""A provider that resets connections in mid-answer, falls silent, or is overloaded."""

from __future__ import annotations

import random
from collections import Counter

from faults.plan import Size
from faults.scenario import Scenario
from faults.world import Round, World

MANNERS = ("reset", "stall", "refuse", "hiccup")


def nothing(world: World, _: random.Random) -> Counter[str]:
    """The provider does it itself."""
    return Counter()


def count_manners(world: World, done: Round) -> str:
    """How often it behaved how, in calls that came."""
    for step in world.plan.steps:
        for name in MANNERS:
            if f"manner={name}" in str(step.data.get("user_input")):
                done.faults[name] += world.provider.calls_of[step.tag] > 0
    return ""


SCENARIOS = (
    Scenario(
        "provider",
        8,
        nothing,
        Size(7, 3, 6, spread=1.0),
        allowed=("provider_error", "provider_timeout"),
        manners=("", *(f"manner={name}" for name in MANNERS)),
        after=count_manners,
        goals=dict.fromkeys(MANNERS, 25),
    ),
)
