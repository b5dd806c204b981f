"""RabbitMQ restarted, killed, frozen, or closing connections. No worker may die of it."""

from __future__ import annotations

import random
import time
from collections import Counter

from faults.plan import Size
from faults.scenario import Scenario
from faults.world import World

SIZE = Size(4, 3, 12, spread=3.0)
SHORT_FREEZE = 2.0
#: Seconds, from 5 to 90, that the broker is frozen: a round takes the next. Most are short; the longest
#: are longer than the heartbeats of its connections.
FREEZES = tuple(round(5 * 18 ** (n / 9), 1) for n in range(10))
CLOSINGS = 3  # in a round


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
    """The server closes every connection, and again."""
    for _ in range(CLOSINGS):
        time.sleep(rng.uniform(0.3, 1.5))
        world.servers.rabbitmq.close_connections(world.place.name, "a fault")
    return Counter({"all connections closed": CLOSINGS})


def freeze(world: World, rng: random.Random) -> Counter[str]:
    """SIGSTOP for 5 to 90 seconds: connections stay open, and nothing is answered."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.rabbitmq.freeze()
    try:
        time.sleep(SHORT_FREEZE if world.short else FREEZES[world.number % len(FREEZES)])
    finally:
        world.servers.rabbitmq.thaw()
    return Counter({"broker frozen": 1})


SCENARIOS = (
    Scenario("broker-restart", 20, restart, SIZE, outage=True, goals={"broker restarted": 20}),
    Scenario("broker-kill", 10, kill, SIZE, outage=True, goals={"broker killed": 10}),
    Scenario("broker-close", 10, close, SIZE, outage=True, goals={"all connections closed": 30}),
    Scenario("broker-freeze", 10, freeze, SIZE, outage=True, goals={"broker frozen": 10}),
)
