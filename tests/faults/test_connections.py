"""A worker and a client under load open as many connections as is documented, and not one more.

Counted are those that RabbitMQ and PostgreSQL themselves list, by the port at the other end.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from faults import sizes
from faults.plan import Plan, Size
from faults.servers import FaultServers
from faults.sizes import POSTGRESQL, RABBITMQ
from faults.world import World

#: Many more are at work at once, so that every pool is full.
POOL = 3
SLOTS = 16
SECONDS = 4.0
#: Seconds that a slow machine gets until they are.
PATIENCE = 60.0
SIZE = Size(chats=24, turns=3, ordinary=240, spread=SECONDS, threads=12)
_COUNTED = (POSTGRESQL, RABBITMQ)
_PORTS = "SELECT client_port FROM pg_stat_activity WHERE datname = current_database()"


def most_listed(world: World) -> dict[str, Counter[str]]:
    """What the servers listed of each process, at most: for a few seconds, and until pools are full."""
    limits = sizes.limits(world.side.settings, SLOTS)
    pids = {sizes.WORKER: world.crew.members[0].pid, sizes.CLIENT: world.client.pid}
    at_most: dict[str, Counter[str]] = {kind: Counter() for kind in pids}
    began = time.monotonic()
    while (taken := time.monotonic() - began) < PATIENCE:
        if taken > SECONDS and all(
            at_most[kind][name] >= limits[kind][name] for kind in pids for name in _COUNTED
        ):
            break
        # A process's own first: what it closes meanwhile is not counted, and never twice.
        own = {kind: _own_ports(pid, world) for kind, pid in pids.items()}
        listed = {
            POSTGRESQL: {row[0] for row in world.place.sql(_PORTS)},
            RABBITMQ: set(world.servers.rabbitmq.peers(world.place.name)),
        }
        for kind, ports in own.items():
            at_most[kind] |= Counter({name: len(ports[name] & listed[name]) for name in _COUNTED})
    return at_most


def _own_ports(pid: int, world: World) -> dict[str, set[int]]:
    """By the server at the other end: two connections to different ones may have the same port here."""
    servers = {POSTGRESQL: world.place.database_url, RABBITMQ: world.place.broker_url}
    every = [one for one in psutil.Process(pid).net_connections("tcp") if one.raddr]
    return {
        name: {one.laddr.port for one in every if one.raddr.port == urlsplit(url).port}
        for name, url in servers.items()
    }


def cancelled(plan: Plan, rng: random.Random) -> Plan:
    """A third of the turns is cancelled by the client, which then has hints of its own."""
    for track in plan.tracks:
        for place, step in enumerate(track.steps):
            if track.chat_id is not None and rng.random() < 1 / 3:
                track.steps[place] = replace(step, cancel=("cancel", rng.uniform(0, 0.3)))
    return plan


@pytest.fixture(scope="module")
def listed(
    servers: FaultServers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[World, dict[str, Counter[str]]]:
    """Of one worker and one client with small pools."""
    settings = {"database_pool_size": POOL, "broker_pool_size": POOL}
    folder: Path = tmp_path_factory.mktemp("connections") / "world"
    found: dict[str, Counter[str]] = {}

    def watch(world: World, _: random.Random) -> Counter[str]:
        found.update(most_listed(world))
        return Counter()

    world = World(
        servers, "narrow", folder, workers=1, short=True, settings=settings, concurrency=SLOTS
    )
    with world:
        done = world.round(
            "narrow", random.Random(1), SIZE, watch, allowed=("cancelled",), change=cancelled
        )
    assert done.verdict.breaches == []
    return world, found


@pytest.mark.parametrize("name", _COUNTED)
@pytest.mark.parametrize("kind", [sizes.WORKER, sizes.CLIENT])
def test_it_opens_what_it_may_and_not_one_more(
    listed: tuple[World, dict[str, Counter[str]]], kind: str, name: str
) -> None:
    world, found = listed
    assert found[kind][name] == sizes.limits(world.side.settings, SLOTS)[kind][name]
