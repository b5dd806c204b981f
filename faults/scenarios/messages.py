"""Every message delivered twice; every hint and every pushed event stolen."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import AbstractContextManager

from faults.copier import Copier
from faults.plan import Size
from faults.scenario import Scenario
from faults.world import World
from tests.servers.thief import Thief

#: 100 instructions a round.
SIZE = Size(10, 4, 60, spread=6.0)


def copier(world: World) -> AbstractContextManager[object]:
    """Copies everything that is published."""
    return Copier(world.place.broker_url)


def thief(world: World) -> AbstractContextManager[object]:
    """Empties the client's reply queue: neither hints nor events come."""
    world.client.send("reply_to", reply_to=True)
    return Thief(world.place.broker_url, world.client.receive()["reply_to"])


def count_copies(world: World, _: random.Random) -> Counter[str]:
    """The copier is at work all the time; this counts."""
    assert isinstance(world.beside, Copier)
    before = world.beside.copied
    time.sleep(1.0 if world.short else SIZE.spread)
    return Counter({"copies delivered": world.beside.copied - before})


def count_hints(world: World, _: random.Random) -> Counter[str]:
    """The same of the thief."""
    assert isinstance(world.beside, Thief)
    before = world.beside.taken
    time.sleep(1.0 if world.short else SIZE.spread)
    return Counter({"hints and events stolen": world.beside.taken - before})


SCENARIOS = (
    Scenario("twice", 10, count_copies, SIZE, beside=copier),
    Scenario("hints-lost", 10, count_hints, SIZE, beside=thief),
)
