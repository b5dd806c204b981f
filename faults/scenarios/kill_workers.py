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
#: In a round: kills at random, and points that are armed.
KILLS, ARMED = 4, 5
SPREAD = 6.0  # seconds within which they come


def kill(world: World, rng: random.Random) -> bool:
    """Any worker that is up; False when none is."""
    ready = world.crew.ready()
    return bool(ready) and world.crew.send(signal.SIGKILL, rng.choice(ready)) is not None


def kill_and_arm(world: World, rng: random.Random) -> Counter[str]:
    """Kills of any worker, and failpoints for whoever comes by first."""
    points = rng.sample(list(POINTS), 1 if world.short else ARMED)
    faults: list[str] = [*points, *[""] * (1 if world.short else KILLS)]
    rng.shuffle(faults)
    done: Counter[str] = Counter()
    for point in faults:
        if point:
            arm(world.folder, point)
        else:
            done["killed at random"] += kill(world, rng)
        time.sleep(rng.uniform(0, 2 * SPREAD / (KILLS + ARMED)))
    return done


def count_kills(_: World, done: Round) -> str:
    """Empty, or what is wrong: no worker was killed by anybody else."""
    deaths = done.deaths[-signal.SIGKILL]
    done.faults["kills"] = deaths
    sent = sum(n for name, n in done.faults.items() if name.startswith("killed "))
    return "" if deaths <= sent else f"{deaths} workers died of {sent} kills"


SCENARIOS = (
    Scenario(
        "kill-workers",
        15,
        kill_and_arm,
        Size(5, 3, 15, spread=6.0),
        allowed=DOUBT,
        exits=KILLED,
        after=count_kills,
        goals={"kills": 100, **{f"killed {point}": 2 for point in POINTS}},
    ),
)
