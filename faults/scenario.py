"""What a scenario is, and how it is run."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from faults.plan import Plan, Size
from faults.results import Result
from faults.servers import FaultServers
from faults.world import Break, World

#: Codes that a turn may end with because its worker died.
DOUBT = ("in_doubt",)


def _same(plan: Plan, _: random.Random) -> Plan:
    return plan


@dataclass(frozen=True)
class Scenario:
    """``rounds``: of a full run; ``breaking``: what a round breaks; ``allowed``: codes that instructions
    may end with beside success; ``beside``: what goes on during all rounds; ``short``: a round for the
    tests, where that is a smaller one.
    """

    name: str
    rounds: int
    breaking: Break
    size: Size = field(default_factory=Size)
    allowed: tuple[str, ...] = ()
    workers: int = 3
    include: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    manners: tuple[str, ...] = ()
    change: Callable[[Plan, random.Random], Plan] = _same
    beside: Callable[[World], AbstractContextManager[object]] = lambda _: nullcontext()


def run(
    scenario: Scenario,
    servers: FaultServers,
    directory: Path,
    result: Result,
    after_round: Callable[[Result], None],
) -> None:
    """Do the rounds that ``result`` lacks; ``after_round`` is called after each of them.

    What a round does depends on the seed and its number alone, as far as timing lets it.
    """
    world = World(
        servers,
        scenario.name,
        directory,
        workers=scenario.workers,
        include=scenario.include,
        settings=scenario.settings,
    )
    with world, scenario.beside(world):
        deaths = dict(result.deaths)
        while result.done < result.rounds:
            rng = random.Random(f"{result.seed} {scenario.name} {result.done}")
            round_ = world.round(
                f"{scenario.name}-{result.done}",
                rng,
                scenario.size,
                scenario.breaking,
                allowed=scenario.allowed,
                manners=scenario.manners,
                change=scenario.change,
            )
            result.add(round_)
            now = {str(code): count for code, count in world.crew.deaths.items()}
            result.deaths = {code: deaths.get(code, 0) + now.get(code, 0) for code in deaths | now}
            after_round(result)
