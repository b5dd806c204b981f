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
from faults.world import Round, World

KILLED = frozenset({-signal.SIGKILL})
KILLS = 5
SHORT_KILLS = 2
SPREAD = 5.0  # seconds within which a round's kills come


def kill(world: World, rng: random.Random) -> bool:
    """Any worker; False when the one that was drawn is only starting."""
    return world.crew.send(signal.SIGKILL, rng.randrange(100)) is not None


def kill_at_random(world: World, rng: random.Random) -> Counter[str]:
    """Five kills, each of any worker."""
    done: Counter[str] = Counter()
    for _ in range(SHORT_KILLS if world.short else KILLS):
        time.sleep(rng.uniform(0, SPREAD / KILLS))
        done["killed at random"] += kill(world, rng)
    return done


def kill_at_points(world: World, rng: random.Random) -> Counter[str]:
    """Five failpoints, each for whoever comes by first."""
    for point in rng.sample(list(POINTS), SHORT_KILLS if world.short else KILLS):
        arm(world.folder, point)
        time.sleep(rng.uniform(0, SPREAD / KILLS))
    return Counter()


def kill_either_way(world: World, rng: random.Random) -> Counter[str]:
    """One or the other."""
    return rng.choice((kill_at_random, kill_at_points))(world, rng)


def count_kills(_: World, done: Round) -> str:
    """How many there were."""
    done.faults["kills"] = done.deaths[-signal.SIGKILL]
    return ""


SCENARIOS = (
    Scenario(
        "kill-workers",
        20,
        kill_either_way,
        Size(5, 3, 10, spread=4.0),
        allowed=DOUBT,
        exits=KILLED,
        after=count_kills,
        goals={"kills": 100, **{f"killed {point}": 3 for point in POINTS}},
    ),
)
