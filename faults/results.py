"""What is kept of a scenario: a JSON file that is written after each round, so that a run can go on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from faults.world import Round

#: Times that a worker may be as large at the end as it was when it was warm.
GROWTH = 1.25
HEAD = "scenario rounds accepted lost duplicated unledgered in_doubt seconds"


@dataclass
class Result:
    """Of a scenario. ``done``: rounds so far; ``rounds``: rounds to be done.

    ``refused``: how often ``submit`` raised, before the next try; ``faults``: what was broken, how
    often; ``ends``: how the accepted ended, by code; ``deaths``: how workers ended, by exit code;
    ``connections``: the most that there were after a round; ``memory``: of the largest worker, in MB,
    round by round; ``threads``: of the one with most; ``breaches``: every broken promise.
    """

    scenario: str
    seed: int
    rounds: int
    done: int = 0
    accepted: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    unledgered: int = 0
    in_doubt: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    connections: dict[str, int] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, round_: Round) -> None:
        """One round more."""
        verdict = round_.verdict
        self.done += 1
        for name in ("accepted", "refused", "lost", "duplicated", "unledgered", "in_doubt"):
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        self.seconds = round(self.seconds + round_.seconds, 1)
        _add(self.faults, round_.faults)
        _add(self.ends, verdict.ends)
        _add(self.deaths, {str(code): count for code, count in round_.deaths.items()})
        for name, count in round_.connections.items():
            self.connections[name] = max(count, self.connections.get(name, 0))
        self.memory.append(round_.memory)
        self.threads.append(round_.threads)
        self.breaches += [f"round {self.done}: {breach}" for breach in verdict.breaches]

    def judge(self) -> None:
        """What only many rounds show: whether workers grow."""
        for name, sizes in (("MB of memory", self.memory), ("threads", self.threads)):
            tenth = len(sizes) // 10
            if tenth == 0:
                continue
            # The first tenth warms up; behind it nothing may be kept of what was done.
            first, last = median(sizes[tenth : 2 * tenth]), median(sizes[-tenth:])
            if last > GROWTH * first:
                self.breaches.append(f"workers grew from {first} {name} to {last}")

    @property
    def line(self) -> str:
        """The summary, in the order of HEAD."""
        counts = (self.accepted, self.lost, self.duplicated, self.unledgered, self.in_doubt)
        return " ".join(map(str, (self.scenario, self.done, *counts, round(self.seconds))))

    def keep(self, path: Path) -> None:
        """Write it, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)

    @classmethod
    def begun(cls, path: Path, fresh: Result) -> Self | Result:
        """What earlier runs of the same seed have left there, to be gone on with, or ``fresh``."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return fresh
        if (found.scenario, found.seed) != (fresh.scenario, fresh.seed):
            return fresh
        found.rounds = fresh.rounds
        return found


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
