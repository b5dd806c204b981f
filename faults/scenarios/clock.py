"""One of three workers has a clock that is ten minutes off, and is stepped forward and backward.

Every deadline is nearer than that: a worker that trusted its own clock would end, or never end, what
the others have begun.
"""

from __future__ import annotations

import random
import time
from collections import Counter

from faults import clock
from faults.clock import OFF
from faults.plan import Size
from faults.scenario import Scenario
from faults.world import World

STEPS = (OFF, -OFF, 0)


def step(world: World, rng: random.Random) -> Counter[str]:
    """Three steps within a round, in mid-call."""
    assert world.clock is not None
    done: Counter[str] = Counter()
    for _ in range(3):
        time.sleep(0.3 if world.short else rng.uniform(0.3, 1.2))
        world.clock.step(rng.choice(STEPS))
        done["clock stepped"] += 1
    seconds = rng.choice((OFF, -OFF))
    world.clock.step(seconds)
    if abs(world.clock.seen() - seconds) < OFF / 2:
        done["clock seen to be wrong"] += 1
    return done


SCENARIOS = (
    Scenario(
        "clock",
        25,
        step,
        Size(5, 3, 10, spread=2.0),
        include=(clock.MODULE,),
        manners=("", "manner=hiccup"),
        wrong_clock=True,
        after=lambda _, done: "" if done.faults["clock seen to be wrong"] else "no clock was wrong",
        goals={"clock seen to be wrong": 25},
    ),
)
