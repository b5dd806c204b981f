"""SIGTERM and SIGQUIT for workers in the middle of calls: they end by themselves, and lose nothing.

With the usual bound on starts: what is handed back again and again is no poison.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

from faults.plan import Size
from faults.scenario import DOUBT, Scenario
from faults.world import World

SIZE = Size(6, 4, 10, spread=3.0)
#: What is handed back ends with 0 as well. A second SIGTERM may find a process whose work is done
#: already and whose Python is ending: that has no handlers any more.
EXITS = frozenset({0, -signal.SIGTERM})
NUMBERS = (signal.SIGTERM, signal.SIGQUIT)
SIGNALS = 6  # in a round
PATIENCE = 20.0  # seconds until a call is open; the round's calls may be over
LOOK = 0.02

#: Who makes which call, as the ledger has it.
_CALLS = """
    SELECT split_part(attempts.worker, ' ', 1), split_part(data ->> 'user_input', ' ', 1)
      FROM attempts JOIN instructions ON instructions.id = instruction_id
     WHERE attempts.status = 'started' AND final_at IS NULL
"""


def send_in_mid_call(world: World, rng: random.Random, number: signal.Signals) -> int | None:
    """A signal to a worker while the provider answers it; its place, or None when nobody calls."""
    end = time.monotonic() + (1.0 if world.short else PATIENCE)
    while time.monotonic() < end:
        calls = [call for call in world.place.sql(_CALLS) if world.provider.open[call[1]]]
        rng.shuffle(calls)
        for worker, tag in calls:
            for who, member in enumerate(world.crew.targets):
                if member.name not in worker:
                    continue
                sent = world.crew.send(number, who)
                if sent is not None and world.provider.open[tag]:
                    return who
        if not calls and world.journal.is_over:
            return None
        time.sleep(LOOK)
    return None


def terminate(world: World, rng: random.Random) -> Counter[str]:
    """SIGTERM, each for a worker in mid-call; half of them are followed by another one."""
    done: Counter[str] = Counter()
    for _ in range(2 if world.short else SIGNALS):
        time.sleep(rng.uniform(0.0, 0.4))
        who = send_in_mid_call(world, rng, signal.SIGTERM)
        if who is None:
            break
        done["SIGTERM in mid-call"] += 1
        pid = world.crew.targets[who].pid
        if rng.random() < 0.5:
            time.sleep(rng.uniform(0, 0.5))
            if world.crew.targets[who].pid == pid:
                done["a second SIGTERM"] += world.crew.send(signal.SIGTERM, who) == pid
    return done


def quit_at_once(world: World, rng: random.Random) -> Counter[str]:
    """SIGQUIT, each for a worker in mid-call."""
    done: Counter[str] = Counter()
    for _ in range(2 if world.short else SIGNALS):
        time.sleep(rng.uniform(0.0, 0.4))
        done["SIGQUIT in mid-call"] += send_in_mid_call(world, rng, signal.SIGQUIT) is not None
    return +done


SCENARIOS = (
    Scenario(
        "stop-term",
        9,
        terminate,
        SIZE,
        allowed=DOUBT,
        exits=EXITS,
        goals={"SIGTERM in mid-call": 50},
    ),
    Scenario(
        "stop-quit",
        5,
        quit_at_once,
        SIZE,
        allowed=DOUBT,
        exits=EXITS,
        goals={"SIGQUIT in mid-call": 25},
    ),
)
