"""What is kept of runs, ``benchmarks/results/*.json``, read again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Row, Table
from benchmarks.machine import ROOT

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Result:
    """A scenario's."""

    scenario: str
    quick: bool
    machine: dict[str, Any]
    tables: list[Table]
    notes: list[str]
    failures: list[str]

    def when(self) -> str:
        """When it was measured, and on what."""
        commit = self.machine.get("commit")
        return (
            f"{self.machine['date'][:10]}, {self.machine['cores']} cores, "
            f"load {self.machine['load'][0]:.1f} at the start"
            f"{f', commit {commit[:9]}' if commit else ''}{', a short run' if self.quick else ''}."
        )

    def row(self, table: str, name: str) -> Row | None:
        """By the beginning of its table's title and its own name."""
        return next(
            (
                row
                for found in self.tables
                if found.title.startswith(table)
                for row in found.rows
                if row.name == name
            ),
            None,
        )


@dataclass(frozen=True)
class Results:
    """Of all scenarios that have been run, by name."""

    found: dict[str, Result]

    def row(self, scenario: str, table: str, name: str) -> tuple[float | None, ...]:
        """A row's values, ours first. Raises Missing where it was not measured."""
        result = self.found.get(scenario)
        row = result and result.row(table, name)
        if not row or row.values[0] is None:
            raise Missing(f"{scenario} has no {name!r} yet")
        return row.values

    def ours(self, scenario: str, table: str, name: str) -> float:
        """The first value of a row. Raises Missing."""
        (first, *_) = self.row(scenario, table, name)
        assert first is not None
        return first


class Missing(LookupError):
    """Something has not been measured."""


def read(directory: Path = RESULTS) -> Results:
    """All that there is in a folder."""
    return Results({path.stem: _result(path) for path in sorted(directory.glob("*.json"))})


def _result(path: Path) -> Result:
    document = json.loads(path.read_text(encoding="utf-8"))
    tables = [
        Table(
            table["title"],
            tuple(table["columns"]),
            [Row(r["name"], r["unit"], tuple(r["values"]), r["better"]) for r in table["rows"]],
            table["ratios"],
        )
        for table in document["tables"]
    ]
    return Result(
        document["scenario"],
        document["quick"],
        document["machine"],
        tables,
        document["notes"],
        document["failures"],
    )
