"""Generations revoked or cancelled at every stage: submitted, waiting, in the call, after it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from faults.plan import Plan, Size, Step, Track
from faults.scenario import Scenario
from faults.world import World


def cancel_some(plan: Plan, rng: random.Random) -> Plan:
    """Three turns of four are cancelled, at once or within six seconds."""

    def cancelled(step: Step) -> Step:
        if step.type == "CHAT_CREATE" or rng.random() < 0.25:
            return step
        when = rng.choice((0.0, rng.uniform(0, 0.5), rng.uniform(0, 3.0), rng.uniform(3.0, 6.0)))
        return replace(step, cancel=(rng.choice(("revoke", "cancel")), when))

    return Plan([Track([cancelled(s) for s in t.steps], t.chat_id) for t in plan.tracks])


def nothing(world: World, rng: random.Random) -> Counter[str]:
    """The clients do it themselves."""
    return Counter()


SCENARIOS = (
    Scenario(
        "cancel",
        25,
        nothing,
        Size(6, 4, 3, spread=2.0),
        allowed=("cancelled",),
        manners=("", "manner=slow"),
        change=cancel_some,
    ),
)
