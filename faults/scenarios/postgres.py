"""PostgreSQL stopped, killed, or terminating connections. No worker may die of it."""

from __future__ import annotations

import random
import time
from collections import Counter

from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.world import World

SIZE = Size(4, 3, 12, spread=5.0)
SHORT_STOP = 1.0

#: Whoever is in the middle of something goes first; at most so many at a time.
_TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM (
        SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid()
         ORDER BY state = 'idle', random() LIMIT 5
    ) AS chosen
"""


def stop(world: World, rng: random.Random) -> Counter[str]:
    """Away for 5 to 60 seconds."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.postgres.stop()
    time.sleep(SHORT_STOP if world.short else rng.uniform(5.0, 60.0))
    world.servers.postgres.start()
    return Counter({"PostgreSQL stopped": 1})


def kill(world: World, rng: random.Random) -> Counter[str]:
    """SIGKILL, and a start that replays its log."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.postgres.kill()
    world.servers.postgres.start()
    return Counter({"PostgreSQL killed": 1})


def terminate(world: World, rng: random.Random) -> Counter[str]:
    """``pg_terminate_backend``, again and again, of those at work first."""
    done: Counter[str] = Counter()
    for _ in range(4 if world.short else 10):
        time.sleep(rng.uniform(0.05, 0.5))
        ((count,),) = world.place.sql(_TERMINATE)
        done["connections terminated"] += count
    return done


SCENARIOS = (
    # A lease is six seconds here: an outage that is longer leaves calls in doubt.
    Scenario("postgres-stop", 15, stop, SIZE, allowed=DOUBT, outage=True),
    Scenario("postgres-kill", 10, kill, SIZE, allowed=DOUBT, outage=True),
    Scenario("postgres-terminate", 12, terminate, SIZE, outage=True),
)
