"""What a scenario is, and how it is run."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.sides import CONCURRENCY
from faults.plan import Plan, Size
from faults.results import Result
from faults.servers import FaultServers
from faults.world import MANY_STARTS, PATIENT, SHORT_LEASE, Break, Round, World

#: Codes that a turn may end with because its worker died.
DOUBT = ("in_doubt",)
#: Times its number of rounds that a scenario goes on for what was not broken often enough.
LONGEST = 3


def _same(plan: Plan, _: random.Random) -> Plan:
    return plan


@dataclass(frozen=True)
class Scenario:
    """``rounds``: of a full run; ``breaking``: what a round breaks; ``allowed``: codes that instructions
    may end with beside success; ``outage``: submissions may be refused; ``exits``: exit codes that
    workers may end with; ``change``: of a plan;
    ``beside``: what goes on during all rounds; ``after``: what else is wrong with a round;
    ``wrong_clock``: that of the first worker is; ``spared``: workers that nothing is done to;
    ``goals``: how often, at least, what is broken in a full run: it has more rounds where it must.
    """

    name: str
    rounds: int
    breaking: Break
    size: Size = field(default_factory=Size)
    allowed: tuple[str, ...] = ()
    outage: bool = False
    exits: frozenset[int] = frozenset()
    workers: int = 3
    concurrency: int = CONCURRENCY
    include: tuple[str, ...] = ()
    settings: dict[str, object] = field(default_factory=dict)
    manners: tuple[str, ...] = ()
    wrong_clock: bool = False
    spared: int = 0
    goals: Mapping[str, int] = field(default_factory=dict)
    change: Callable[[Plan, random.Random], Plan] = _same
    beside: Callable[[World], AbstractContextManager[object]] = lambda _: nullcontext()
    after: Callable[[World, Round], str] = lambda *_: ""

    @property
    def its_settings(self) -> dict[str, object]:
        """What its workers and clients are told, besides what all are."""
        lease = SHORT_LEASE if "in_doubt" in self.allowed else {}
        starts = MANY_STARTS if -signal.SIGKILL in self.exits else {}
        return lease | starts | ({} if self.outage else PATIENT) | self.settings

    def run(
        self,
        servers: FaultServers,
        directory: Path,
        result: Result,
        goals: Mapping[str, int],
        after_round: Callable[[Result], None],
    ) -> None:
        """The rounds that ``result`` lacks, and more while it lacks of ``goals``, all in one world.

        What a round does depends on the seed and its number alone, as far as timing lets it.
        ``after_round`` is called after each of them.
        """
        world = World(
            servers,
            self.name,
            directory,
            workers=self.workers,
            include=self.include,
            settings=self.its_settings,
            wrong_clock=self.wrong_clock,
            spared=self.spared,
            concurrency=self.concurrency,
        )
        with world, self.beside(world) as world.beside:
            while result.done < result.rounds or (
                result.lacks(goals) and result.done < LONGEST * result.rounds
            ):
                result.add(run_round(self, world, result.seed, result.done))
                after_round(result)


def run_round(
    scenario: Scenario, world: World, seed: int, number: int, size: Size | None = None
) -> Round:
    """One round, in a world that has what goes on ``beside`` it."""
    before = Counter(world.crew.deaths)
    world.number = number
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
    if not scenario.outage:
        if done.verdict.refused:
            done.verdict.breach(f"{done.verdict.refused} submissions were refused")
        unheard = sum(memory.uncancelled for memory in world.journal.memories.values())
        if unheard:
            done.verdict.breach(f"{unheard} cancels were refused")
    wrong = scenario.after(world, done)
    if wrong:
        done.verdict.breach(wrong)
    return done
