"""What a scenario hands back: tables of figures, raw samples and plots."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

#: ``lower`` and ``higher`` say which end is better; ``plain`` figures get no ratio.
Better = Literal["lower", "higher", "plain"]
PERCENTILES = (("p50", 0.50), ("p95", 0.95), ("p99", 0.99))


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` (0 to 1) of all are not above (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Row:
    """A figure for each column of its table; None where it was not measured."""

    name: str
    unit: str
    values: tuple[float | None, ...]
    better: Better = "lower"

    def ratio(self, against: int) -> float | None:
        """How many times better the first column is than the column ``against``."""
        first, other = self.values[0], self.values[against]
        if self.better == "plain" or not first or not other:
            return None
        return other / first if self.better == "lower" else first / other


@dataclass
class Table:
    """``ratios``: whether the first column is compared with each of the others."""

    title: str
    columns: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)
    ratios: bool = True

    def add(
        self, name: str, unit: str, values: Iterable[float | None], better: Better = "lower"
    ) -> None:
        """Add a row, its values in the order of the columns."""
        self.rows.append(Row(name, unit, tuple(values), better))

    def add_percentiles(
        self, name: str, columns: Sequence[Sequence[float]], *, scale: float = 1000.0
    ) -> None:
        """Rows for p50, p95 and p99 of samples in seconds, shown in ms."""
        for label, share in PERCENTILES:
            values = [percentile(c, share) * scale if c else None for c in columns]
            self.add(f"{name} {label}", "ms", values)


@dataclass(frozen=True)
class Bars:
    """A bar per label."""

    title: str
    unit: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Lines:
    """A line per name, through its points."""

    title: str
    x_title: str
    y_title: str
    lines: dict[str, list[tuple[float, float]]]
    logarithmic_x: bool = False


@dataclass
class Report:
    """The outcome of a scenario. ``notes`` are sentences that belong to the figures; ``seconds``: how
    long it took."""

    tables: list[Table] = field(default_factory=list)
    plots: list[Bars | Lines] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
