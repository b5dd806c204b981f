"""SIGKILL for workers: at random moments, and at each of the failpoints."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from faults.crew import arm
from faults.failpoints import POINTS
from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.world import World

KILLED = frozenset({-signal.SIGKILL})
KILLS = 5
SPREAD = 5.0  # seconds within which a round's kills come


def kill_at_random(world: World, rng: random.Random) -> Counter[str]:
    """Five kills, each of any worker."""
    done: Counter[str] = Counter()
    for _ in range(KILLS):
        time.sleep(rng.uniform(0, SPREAD / KILLS))
        if world.crew.send(signal.SIGKILL, rng.randrange(100)) is not None:
            done["killed at random"] += 1
    return done


def kill_at_points(world: World, rng: random.Random) -> Counter[str]:
    """Five failpoints, each for whoever comes by first."""
    for point in rng.sample(list(POINTS), KILLS):
        arm(world.folder, point)
        time.sleep(rng.uniform(0, SPREAD / KILLS))
    return Counter()


def kill_either_way(world: World, rng: random.Random) -> Counter[str]:
    """One or the other."""
    return rng.choice((kill_at_random, kill_at_points))(world, rng)


SCENARIOS = (
    Scenario(
        "kill-workers", 30, kill_either_way, Size(5, 3, 10, spread=5.0), allowed=DOUBT, exits=KILLED
    ),
)
