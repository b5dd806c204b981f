"""An instruction that kills each worker that takes it, among a hundred that don't."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from faults.plan import Plan, Size, Step, Track
from faults.scenario import Scenario
from faults.scenarios.kill_workers import KILLED
from faults.world import Round, World
from llmchatlinker.settings import Settings
from tests.servers import poison

STARTS = Settings().starts
NEIGHBOURS = 100
TOLD = 60.0  # seconds within which the client is told

_LETTERS = """
    SELECT count(*) FROM dead_letters JOIN instructions ON instructions.id = instruction_id
     WHERE data ->> 'username' = %s AND became = 'closed'
"""


def add_poison(plan: Plan, rng: random.Random) -> Plan:
    """One more thread, which submits it in the midst of the others."""
    tag = f"poison-{plan.steps[0].tag}"
    step = Step(tag, "USER_CREATE", {"username": tag}, pause=rng.uniform(0, 1.5))
    return replace(plan, tracks=[*plan.tracks, Track([step])])


def nothing(world: World, _: random.Random) -> Counter[str]:
    """It does it itself."""
    return Counter()


def found(world: World, done: Round) -> str:
    """Empty, or what is wrong: a death for each start, a dead letter, a client told, neighbours done."""
    (tag,) = (step.tag for step in world.plan.steps if step.type == "USER_CREATE")
    memory = world.journal.of(tag)
    neighbours = len(world.plan.steps) - 1
    ((letters,),) = world.place.sql(_LETTERS, tag)
    wrong = []
    if memory.code != "poisoned":
        wrong.append(f"it ended with {memory.code}")
    elif memory.seconds > TOLD:
        wrong.append(f"its client was told after {memory.seconds:.0f} s")
    if done.deaths.total() != STARTS:
        wrong.append(f"{done.deaths.total()} workers died of it, and it may begin {STARTS} times")
    if letters != 1:
        wrong.append(f"there are {letters} dead letters of it")
    if done.verdict.ends["success"] != neighbours:
        wrong.append(f"{done.verdict.ends['success']} of {neighbours} neighbours are done")
    if not wrong:
        done.faults["poison found"] += 1
    return "; ".join(wrong)


SCENARIOS = (
    Scenario(
        "poison",
        20,
        nothing,
        Size(chats=0, turns=0, ordinary=NEIGHBOURS, spread=3.0),
        allowed=("poisoned",),
        exits=KILLED,
        include=(poison.MODULE,),
        settings={"starts": STARTS},
        change=add_poison,
        after=found,
        goals={"poison found": 20},
    ),
)
