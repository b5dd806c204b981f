"""Every message delivered twice; every hint and every pushed event stolen."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field

from faults.copier import Copier
from faults.plan import Size
from faults.scenario import Scenario
from faults.world import Round, World
from tests.servers.thief import Thief

#: 250 instructions a round.
SIZE = Size(25, 4, 150, spread=5.0)
PROMISED = 1000
STAGES = 3  # each of which has a message
LOOK = 0.05  # seconds
PATIENCE = 60.0


def copier(world: World) -> AbstractContextManager[object]:
    """Copies everything that is published."""
    return Copier(world.place.broker_url)


@dataclass
class Thieves:
    """``hints``, ``events``: who takes them; ``came``: hints that the client had got until then;
    ``before``: what was stolen in earlier rounds.
    """

    hints: Thief
    events: Thief
    came: int
    before: Counter[str] = field(default_factory=Counter)

    def taken(self) -> Counter[str]:
        """Since the last time."""
        now = Counter({"hints stolen": self.hints.taken, "events stolen": self.events.taken})
        taken, self.before = now - self.before, now
        return taken


@contextmanager
def thieves(world: World) -> Iterator[Thieves]:
    """Empty the client's queues: neither hints nor events come."""
    world.client.send("queues", queues=True)
    told = world.client.receive()
    with ExitStack() as stack:
        url = world.place.broker_url
        hints, events = (stack.enter_context(Thief(url, name)) for name in told["queues"])
        yield Thieves(hints, events, _hints_that_came(world))


def wait_for_copies(world: World, _: random.Random) -> Counter[str]:
    """The copier is at work all the time; the last copies come after the clients have their results."""
    copier = world.beside
    assert isinstance(copier, Copier)
    while not world.journal.is_over:
        time.sleep(LOOK)
    end = time.monotonic() + PATIENCE
    while copier.pending and time.monotonic() < end:
        time.sleep(LOOK)
    return Counter()


def all_copied(world: World, done: Round) -> str:
    """Empty, or what is wrong: each stage's message came twice."""
    copier = world.beside
    assert isinstance(copier, Copier)
    copies, copier.copied = copier.copied, 0
    done.faults["copies delivered"] = copies
    least = STAGES * done.verdict.accepted
    return "" if copies >= least else f"{copies} copies, for {least} messages at least"


def nothing(world: World, _: random.Random) -> Counter[str]:
    """The thieves are at work all the time."""
    return Counter()


def all_stolen(world: World, done: Round) -> str:
    """Empty, or what is wrong: a hint of each instruction was stolen, and none came."""
    kept = world.beside
    assert isinstance(kept, Thieves)
    taken = kept.taken()
    done.faults += taken
    came = _hints_that_came(world) - kept.came
    if came:
        return f"{came} hints came all the same"
    stolen, accepted = taken["hints stolen"], done.verdict.accepted
    return "" if stolen >= accepted else f"{stolen} hints stolen, of {accepted} instructions"


def _hints_that_came(world: World) -> int:
    world.client.send("hints", hints=True)
    came: int = world.client.receive()["hints"]
    return came


SCENARIOS = (
    Scenario(
        "twice",
        PROMISED // 250,
        wait_for_copies,
        SIZE,
        beside=copier,
        after=all_copied,
        goals={"accepted": PROMISED, "copies delivered": STAGES * PROMISED},
    ),
    Scenario(
        "hints-lost",
        PROMISED // 250,
        nothing,
        SIZE,
        beside=thieves,
        after=all_stolen,
        goals={"accepted": PROMISED, "hints stolen": PROMISED},
    ),
)
