"""Everything at once, for as long as one likes: 300 instructions a round, and any fault.

``make faults SCENARIO=soak ROUNDS=334`` is a hundred thousand. Each round notes memory, threads and
connections.
"""

from __future__ import annotations

import random
from collections import Counter

from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.scenarios.broker import close
from faults.scenarios.cancels import cancel_some
from faults.scenarios.kill_workers import KILLED, kill_at_points, kill_at_random
from faults.scenarios.postgres import terminate as terminate_connections
from faults.scenarios.provider import MANNERS
from faults.scenarios.stops import EXITS
from faults.scenarios.stops import terminate as stop_workers
from faults.world import Break, World


def nothing(world: World, rng: random.Random) -> Counter[str]:
    """A quiet round."""
    return Counter({"nothing": 1})


FAULTS: tuple[Break, ...] = (
    nothing,
    kill_at_random,
    kill_at_points,
    stop_workers,
    close,
    terminate_connections,
)


def anything(world: World, rng: random.Random) -> Counter[str]:
    """One of them."""
    return rng.choice(FAULTS)(world, rng)


SCENARIOS = (
    Scenario(
        "soak",
        10,
        anything,
        Size(20, 3, 240, spread=6.0),
        allowed=(*DOUBT, "cancelled", "provider_error", "provider_timeout"),
        outage=True,
        exits=KILLED | EXITS,
        manners=("", "", "", *(f"manner={name}" for name in MANNERS)),
        change=cancel_some,
    ),
)
