"""SIGTERM and SIGQUIT for workers in the middle of calls: they end by themselves, and lose nothing."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.world import World

SIZE = Size(5, 3, 10, spread=4.0)
#: What is handed back ends with 0 as well. A second SIGTERM may find a process whose work is done
#: already and whose Python is ending: that has no handlers any more.
EXITS = frozenset({0, -signal.SIGTERM})


def terminate(world: World, rng: random.Random) -> Counter[str]:
    """Four SIGTERM, each of any worker; half of them are followed by another one."""
    done: Counter[str] = Counter()
    for _ in range(4):
        who = rng.randrange(100)
        time.sleep(rng.uniform(0.3, 1.5))
        pid = world.crew.send(signal.SIGTERM, who)
        done["SIGTERM"] += pid is not None
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.5))
            if pid is not None and world.crew.send(signal.SIGTERM, who) == pid:
                done["a second SIGTERM"] += 1
    return done


def quit_at_once(world: World, rng: random.Random) -> Counter[str]:
    """Two SIGQUIT, each of any worker."""
    done: Counter[str] = Counter()
    for _ in range(2):
        time.sleep(rng.uniform(0.3, 2.0))
        done["SIGQUIT"] += world.crew.send(signal.SIGQUIT, rng.randrange(100)) is not None
    return done


SCENARIOS = (
    Scenario("stop-term", 14, terminate, SIZE, allowed=DOUBT, exits=EXITS),
    Scenario("stop-quit", 14, quit_at_once, SIZE, allowed=DOUBT, exits=EXITS),
)
