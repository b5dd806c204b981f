"""PostgreSQL stopped, killed, or terminating connections. No worker may die of it."""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import closing

import psycopg2
from psycopg2.errors import LockNotAvailable

from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.world import World
from llmchatlinker import outcomes
from llmchatlinker.db.prepared import prepared

SIZE = Size(4, 3, 12, spread=3.0)
SHORT_STOP = 1.0
#: Seconds, from 5 to 60, that PostgreSQL is away: a round takes the next. Most are short.
STOPS = tuple(round(5 * 12 ** (n / 14), 1) for n in range(15))
#: In a burst, and bursts in a round.
IN_STORE, ELSEWHERE = 3, 2
BURSTS = 6
PATIENCE = 1.0  # seconds that a burst waits for somebody to store

#: What makes an id final deletes from there, and so waits for whoever has locked it.
_LOCK = "SET lock_timeout = '2s'; LOCK TABLE waiters IN EXCLUSIVE MODE"
_STORING = """
    SELECT pg_stat_clear_snapshot(), pid FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'
       AND (query LIKE %s OR query LIKE '%%WITH ended AS%%') ORDER BY backend_start
"""
#: Whoever is in the middle of something goes first.
_AT_WORK = """
    SELECT pid FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'llmchatlinker'
     ORDER BY state = 'idle', backend_start
"""
_TERMINATE = """
    SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM unnest(CAST(%s AS int[])) AS pid
"""


def stop(world: World, rng: random.Random) -> Counter[str]:
    """Away for 5 to 60 seconds."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.postgres.stop()
    time.sleep(SHORT_STOP if world.short else STOPS[world.number % len(STOPS)])
    world.servers.postgres.start()
    return Counter({"PostgreSQL stopped": 1})


def stop_shortly(world: World, rng: random.Random) -> Counter[str]:
    """Away for as long as a restart takes."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.postgres.stop()
    world.servers.postgres.start()
    return Counter({"PostgreSQL restarted": 1})


def kill(world: World, rng: random.Random) -> Counter[str]:
    """SIGKILL, and a start that replays its log."""
    time.sleep(rng.uniform(0.3, 2.0))
    world.servers.postgres.kill()
    world.servers.postgres.start()
    return Counter({"PostgreSQL killed": 1})


def terminate(world: World, rng: random.Random) -> Counter[str]:
    """``pg_terminate_backend`` in bursts: of those that store, and of others that are at work."""
    done: Counter[str] = Counter()
    for _ in range(2 if world.short else BURSTS):
        time.sleep(rng.uniform(0.05, 0.4))
        done += terminate_once(world, rng)
    return done


def terminate_once(world: World, rng: random.Random) -> Counter[str]:
    """One burst."""
    stored = _terminate_storing(world, rng)
    pids = [row[0] for row in world.place.sql(_AT_WORK)][: 2 * ELSEWHERE]
    chosen = rng.sample(pids, min(ELSEWHERE, len(pids)))
    ((count,),) = world.place.sql(_TERMINATE, chosen)
    return Counter(
        {"connections terminated during store": stored, "connections terminated elsewhere": count}
    )


def _terminate_storing(world: World, rng: random.Random) -> int:
    """Have stores wait for a lock, in the middle of their statement, and end some of them there."""
    name = f"%{prepared(outcomes._FINALISE).name}%"
    connection = psycopg2.connect(world.place.plain_url)
    with closing(connection), connection.cursor() as cursor:
        try:
            cursor.execute(_LOCK)
        except LockNotAvailable:
            return 0
        end = time.monotonic() + PATIENCE
        pids: list[int] = []
        while len(pids) < IN_STORE and time.monotonic() < end:
            time.sleep(0.02)
            cursor.execute(_STORING, (name,))
            pids = [row[1] for row in cursor.fetchall()]
        cursor.execute(_TERMINATE, (rng.sample(pids, min(IN_STORE, len(pids))),))
        (count,) = cursor.fetchone() or (0,)
        return int(count)


SCENARIOS = (
    # A lease is six seconds here: an outage that is longer leaves calls in doubt.
    Scenario(
        "postgres-stop",
        15,
        stop,
        SIZE,
        allowed=DOUBT,
        outage=True,
        goals={"PostgreSQL stopped": 15},
    ),
    Scenario(
        "postgres-kill", 10, kill, SIZE, allowed=DOUBT, outage=True, goals={"PostgreSQL killed": 10}
    ),
    Scenario(
        "postgres-terminate",
        6,
        terminate,
        Size(4, 3, 40, spread=3.0),
        outage=True,
        goals={"connections terminated during store": 30},
    ),
)
