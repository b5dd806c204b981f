"""A provider that resets connections in mid-answer, falls silent, or is overloaded."""

from __future__ import annotations

import random
from collections import Counter

from faults.plan import Size
from faults.scenario import Scenario
from faults.world import World

MANNERS = ("reset", "stall", "refuse", "hiccup")


def count_manners(world: World, _: random.Random) -> Counter[str]:
    """The provider does it itself."""
    return Counter()


SCENARIOS = (
    Scenario(
        "provider",
        15,
        count_manners,
        Size(6, 3, 6, spread=2.0),
        allowed=("provider_error", "provider_timeout"),
        manners=("", *(f"manner={name}" for name in MANNERS)),
    ),
)
