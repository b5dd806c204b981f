"""An instruction that kills each worker that takes it, among a hundred that don't."""

from __future__ import annotations

import random
from collections import Counter

from faults.plan import Plan, Size, Step, Track
from faults.scenario import DOUBT, Scenario
from faults.scenarios.kill_workers import KILLED
from faults.world import Round, World
from tests.servers import poison

STARTS = 3


def add_poison(plan: Plan, rng: random.Random) -> Plan:
    """One more thread, which submits it in the midst of the others."""
    tag = f"poison-{plan.steps[0].tag}"
    step = Step(tag, "USER_CREATE", {"username": tag}, pause=rng.uniform(0, 2.0))
    return Plan([*plan.tracks, Track([step])])


def nothing(world: World, _: random.Random) -> Counter[str]:
    """It does it itself."""
    return Counter({"poison": 1})


def found(done: Round) -> str:
    """Empty, or what is wrong. Of a message that the sweeper has doubled each copy kills once more."""
    ends, deaths = done.verdict.ends["poisoned"], done.deaths.total()
    if ends == 1 and STARTS <= deaths <= 2 * STARTS:
        return ""
    return f"{ends} instructions are poisoned, {deaths} workers died"


SCENARIOS = (
    Scenario(
        "poison",
        20,
        nothing,
        Size(4, 3, 88, spread=4.0),
        allowed=(*DOUBT, "poisoned"),
        exits=KILLED,
        include=(poison.MODULE,),
        settings={"starts": STARTS},
        change=add_poison,
        after=found,
    ),
)
