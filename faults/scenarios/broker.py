"""RabbitMQ restarted, killed, frozen, or closing connections. No worker may die of it."""

from __future__ import annotations

import random
import time
from collections import Counter

from faults.plan import Size
from faults.scenario import Scenario
from faults.world import World

SIZE = Size(4, 3, 12, spread=6.0)
SHORT_FREEZE = 2.0


def restart(world: World, rng: random.Random) -> Counter[str]:
    """An orderly stop, and a start."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.rabbitmq.restart()
    return Counter({"broker restarted": 1})


def kill(world: World, rng: random.Random) -> Counter[str]:
    """SIGKILL, and a start."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.rabbitmq.kill()
    world.servers.rabbitmq.restart()
    return Counter({"broker killed": 1})


def close(world: World, rng: random.Random) -> Counter[str]:
    """The server closes every connection, twice."""
    for _ in range(2):
        time.sleep(rng.uniform(0.3, 1.5))
        world.servers.rabbitmq.close_connections(world.place.name, "a fault")
    return Counter({"all connections closed": 2})


def freeze(world: World, rng: random.Random) -> Counter[str]:
    """SIGSTOP for 5 to 90 seconds: connections stay open, and nothing is answered."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.rabbitmq.freeze()
    try:
        time.sleep(SHORT_FREEZE if world.short else rng.uniform(5.0, 90.0))
    finally:
        world.servers.rabbitmq.thaw()
    return Counter({"broker frozen": 1})


SCENARIOS = (
    Scenario("broker-restart", 20, restart, SIZE, outage=True),
    Scenario("broker-kill", 10, kill, SIZE, outage=True),
    Scenario("broker-close", 15, close, SIZE, outage=True),
    Scenario("broker-freeze", 10, freeze, SIZE, outage=True),
)
