"""What a scenario is, and how it is run."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from faults.plan import Plan, Size
from faults.results import Result
from faults.servers import FaultServers
from faults.world import PATIENT, SHORT_LEASE, Break, Round, World

#: Codes that a turn may end with because its worker died.
DOUBT = ("in_doubt",)


def _same(plan: Plan, _: random.Random) -> Plan:
    return plan


@dataclass(frozen=True)
class Scenario:
    """``rounds``: of a full run; ``breaking``: what a round breaks; ``allowed``: codes that instructions
    may end with beside success; ``outage``: submissions may be refused; ``exits``: exit codes that
    workers may end with; ``change``: of a plan;
    ``beside``: what goes on during all rounds; ``after``: what else is wrong with a round;
    ``wrong_clock``: that of the first worker is.
    """

    name: str
    rounds: int
    breaking: Break
    size: Size = field(default_factory=Size)
    allowed: tuple[str, ...] = ()
    outage: bool = False
    exits: frozenset[int] = frozenset()
    workers: int = 3
    include: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    manners: tuple[str, ...] = ()
    wrong_clock: bool = False
    change: Callable[[Plan, random.Random], Plan] = _same
    beside: Callable[[World], AbstractContextManager[object]] = lambda _: nullcontext()
    after: Callable[[Round], str] = lambda _: ""

    @property
    def its_settings(self) -> dict[str, object]:
        """What its workers and clients are told, besides what all are."""
        lease = SHORT_LEASE if "in_doubt" in self.allowed else {}
        return lease | ({} if self.outage else PATIENT) | self.settings

    def run(self, directory: Path, result: Result, after_round: Callable[[Result], None]) -> None:
        """The rounds that ``result`` lacks, on servers of their own."""
        with FaultServers() as servers:
            result.machine["servers"] = servers.versions()
            run(self, servers, directory, result, after_round)


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
        settings=scenario.its_settings,
        wrong_clock=scenario.wrong_clock,
    )
    with world, scenario.beside(world) as world.beside:
        while result.done < result.rounds:
            result.add(run_round(scenario, world, result.seed, result.done))
            after_round(result)


def run_round(
    scenario: Scenario, world: World, seed: int, number: int, size: Size | None = None
) -> Round:
    """One round, in a world that has what goes on ``beside`` it."""
    before = Counter(world.crew.deaths)
    done = world.round(
        f"{scenario.name}-{number}",
        random.Random(f"{seed} {scenario.name} {number}"),
        size or scenario.size,
        scenario.breaking,
        allowed=scenario.allowed,
        manners=scenario.manners,
        change=scenario.change,
    )
    done.deaths = world.crew.deaths - before
    for code in done.deaths.keys() - scenario.exits:
        done.verdict.breach(f"{done.deaths[code]} workers ended with {code}")
    if done.verdict.refused and not scenario.outage:
        done.verdict.breach(f"{done.verdict.refused} submissions were refused")
    wrong = scenario.after(done)
    if wrong:
        done.verdict.breach(wrong)
    return done
