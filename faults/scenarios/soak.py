"""Everything at once: a hundred thousand mixed instructions, and any fault at any time.

Each round submits as fast as the system takes it, and something breaks every few seconds until the
clients have their results. One of the workers is spared: it and the client show whether memory, threads
and connections stay what they are.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from faults.crew import arm
from faults.failpoints import POINTS
from faults.plan import Plan, Size, Step, Track
from faults.scenario import DOUBT, Scenario
from faults.scenarios import broker, kill_workers, postgres, stops
from faults.scenarios.provider import MANNERS
from faults.world import Break, World

INSTRUCTIONS = 100_000
A_ROUND = 5_050
CHATS, TURNS = 50, 5
PAUSE = (2.0, 7.0)  # seconds between two faults
SHORT_PAUSE = (0.2, 0.5)
SHORT_FAULTS = 4
LOOK = 0.1

#: Beside what creates a chat, in which nothing is to be done twice either.
OTHERS: tuple[tuple[str, dict[str, object]], ...] = (
    ("USER_LIST", {"limit": 5}),
    ("LLM_LIST", {}),
    ("USER_GET", {"user_id": 1}),
    ("INSTRUCTION_LIST", {"limit": 5}),
)


def mix(plan: Plan, rng: random.Random) -> Plan:
    """A turn of four is cancelled within a second; a third of the others are of other types."""

    def mixed(step: Step) -> Step:
        if step.type != "CHAT_CREATE":
            if rng.random() < 0.75:
                return step
            way = rng.choice(("revoke", "cancel"))
            return replace(step, cancel=(way, rng.choice((0.0, rng.uniform(0, 1.0)))))
        chance = rng.random()
        if chance < 0.2:
            type_name, data = rng.choice(OTHERS)
            return replace(step, type=type_name, data=dict(data))
        if chance < 0.35:
            return replace(step, type="USER_CREATE", data={"username": step.tag})
        return step

    tracks = [Track([mixed(step) for step in track.steps], track.chat_id) for track in plan.tracks]
    return replace(plan, tracks=tracks)


def nothing(world: World, rng: random.Random) -> Counter[str]:
    """A quiet moment."""
    return Counter({"nothing": 1})


def kill_one(world: World, rng: random.Random) -> Counter[str]:
    """SIGKILL."""
    return Counter({"killed at random": int(kill_workers.kill(world, rng))})


def arm_one(world: World, rng: random.Random) -> Counter[str]:
    """A failpoint for whoever comes by first."""
    arm(world.folder, rng.choice(list(POINTS)))
    return Counter()


def stop_one(world: World, rng: random.Random) -> Counter[str]:
    """SIGTERM or SIGQUIT."""
    number = rng.choice(stops.NUMBERS)
    return Counter({number.name: int(world.crew.send(number, rng.randrange(100)) is not None)})


def close(world: World, rng: random.Random) -> Counter[str]:
    """The broker closes every connection."""
    world.servers.rabbitmq.close_connections(world.place.name, "a fault")
    return Counter({"all connections closed": 1})


#: Outages cost time in which nothing is done: they are rarer.
FAULTS: dict[Break, int] = {
    nothing: 2,
    kill_one: 3,
    arm_one: 4,
    stop_one: 3,
    close: 2,
    postgres.terminate_once: 3,
    postgres.stop_shortly: 1,
    postgres.kill: 1,
    broker.restart: 1,
    broker.kill: 1,
}


def anything(world: World, rng: random.Random) -> Counter[str]:
    """One after the other, for as long as clients are at work."""
    done: Counter[str] = Counter()
    faults = _drawn(rng)
    if world.short:
        faults = iter(rng.sample(list(FAULTS), SHORT_FAULTS))
    for fault in faults:
        end = time.monotonic() + rng.uniform(*(SHORT_PAUSE if world.short else PAUSE))
        while time.monotonic() < end:
            if world.journal.is_over:
                return done
            time.sleep(LOOK)
        done += fault(world, rng)
    return done


def _drawn(rng: random.Random) -> Iterator[Break]:
    while True:
        yield from rng.choices(list(FAULTS), list(FAULTS.values()))


SCENARIOS = (
    Scenario(
        "soak",
        20,
        anything,
        Size(CHATS, TURNS, A_ROUND - CHATS * TURNS, spread=10.0, threads=8),
        allowed=(*DOUBT, "cancelled", "provider_error", "provider_timeout"),
        outage=True,
        exits=kill_workers.KILLED | stops.EXITS,
        manners=(*[""] * 20, *(f"manner={name}" for name in MANNERS)),
        change=mix,
        spared=1,
        goals={"accepted": INSTRUCTIONS},
    ),
)
