"""What is kept of a scenario: a JSON file that is written after each round, so that a run can go on.

It goes on with the same code and the same seed only: rounds of another commit say nothing of this one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from faults import commit
from faults.sizes import COUNTS
from faults.world import Round

#: Times that a process may be as large at the end as it was when it was warm.
GROWTH = 1.25
HEAD = "scenario rounds accepted lost duplicated unledgered in_doubt seconds"


@dataclass
class Result:
    """Of a scenario. ``commit``: the code; ``done``: rounds so far; ``rounds``: rounds to be done.

    ``refused``: how often ``submit`` raised, before the next try; ``faults``: what was broken, how
    often; ``ends``: how the accepted ended, by code; ``deaths``: how workers ended, by exit code;
    ``phases``: seconds by what rounds spent them on; ``sizes``: after each round, what must not grow;
    ``breaches``: every broken promise; ``judgement``: those that only many rounds show.
    """

    scenario: str
    seed: int
    rounds: int
    commit: str = commit.UNKNOWN
    done: int = 0
    accepted: int = 0
    refused: int = 0
    lost: int = 0
    duplicated: int = 0
    unledgered: int = 0
    in_doubt: int = 0
    seconds: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, list[float]] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)
    judgement: list[str] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, round_: Round) -> None:
        """One round more."""
        verdict = round_.verdict
        self.done += 1
        for name in ("accepted", "refused", "lost", "duplicated", "unledgered", "in_doubt"):
            setattr(self, name, getattr(self, name) + getattr(verdict, name))
        self.seconds = round(self.seconds + round_.seconds, 1)
        for name, seconds in round_.phases.items():
            self.phases[name] = round(self.phases.get(name, 0.0) + seconds, 1)
        _add(self.faults, round_.faults)
        _add(self.ends, verdict.ends)
        _add(self.deaths, {str(code): count for code, count in round_.deaths.items()})
        for name, size in round_.sizes.items():
            self.sizes.setdefault(name, []).append(size)
        self.breaches += [f"round {self.done}: {breach}" for breach in verdict.breaches]

    def lacks(self, goals: Mapping[str, int]) -> list[str]:
        """Of what is to be done so often: what was not. ``accepted`` is a goal as well."""
        counts = self.faults | {"accepted": self.accepted}
        return [
            f"{counts.get(name, 0)} of {least} times: {name}"
            for name, least in goals.items()
            if counts.get(name, 0) < least
        ]

    def judge(self, goals: Mapping[str, int]) -> None:
        """What only many rounds show: whether something grows, and whether enough was broken."""
        self.judgement = self.lacks(goals)
        for name, sizes in self.sizes.items():
            tenth = len(sizes) // 10
            if tenth == 0:
                continue
            # What is counted has a limit of its own, at which each round was held; below it a pool opens
            # what the moment needs, so that to have more than before says nothing.
            if name.endswith(COUNTS):
                continue
            # The first tenth warms up; behind it nothing may be kept of what was done.
            first, last = median(sizes[tenth : 2 * tenth]), median(sizes[-tenth:])
            if last > GROWTH * first:
                self.judgement.append(f"{name} grew from {first} to {last}")

    @property
    def broken(self) -> list[str]:
        """Every promise that was not kept."""
        return self.breaches + self.judgement

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
    def begun(cls, path: Path, fresh: Result) -> tuple[Result, str]:
        """What earlier runs have left there to be gone on with, or ``fresh``; and why the latter."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return fresh, ""
        except (OSError, ValueError, TypeError):
            return fresh, f"{path} can't be read"
        if found.seed != fresh.seed:
            return fresh, f"{path} is of seed {found.seed}"
        if found.commit != fresh.commit or fresh.commit == commit.UNKNOWN:
            return fresh, f"{path} is of commit {found.commit}, and this is {fresh.commit}"
        found.rounds = fresh.rounds
        return found, ""


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count
