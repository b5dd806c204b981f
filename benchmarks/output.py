"""Showing reports on the terminal, and keeping them as JSON and SVG."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from benchmarks import svg
from benchmarks.figures import Report, Row, Table

#: Samples of a kind that are kept, at most: enough for every percentile that is shown.
KEPT = 1_000


def show(console: Console, scenario: str, report: Report) -> None:
    """Print the tables and notes."""
    for table in report.tables:
        console.print(_rich(scenario, table))
    for note in report.notes:
        console.print(f"  {note}")
    for failure in report.failures:
        console.print(f"  [red]{failure}[/]")


def keep(
    directory: Path, scenario: str, report: Report, machine: dict[str, Any], quick: bool
) -> Path:
    """Write ``<scenario>.json`` and, if there are plots, ``<scenario>.svg``.

    Of more than ``KEPT`` samples it has as many, evenly spaced among the sorted ones.
    """
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        "scenario": scenario,
        "quick": quick,
        "seconds": round(report.seconds),
        "machine": machine,
        "tables": [asdict(table) for table in report.tables],
        "notes": report.notes,
        "failures": report.failures,
        "raw": _thinned(report.raw),
    }
    path = directory / f"{scenario}.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if report.plots:
        path.with_suffix(".svg").write_text(svg.render(report.plots), encoding="utf-8")
    return path


def _thinned(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {key: _thinned(value) for key, value in raw.items()}
    if not isinstance(raw, list | tuple):
        return raw
    if len(raw) <= KEPT or not all(isinstance(value, int | float) for value in raw):
        return [_thinned(value) for value in raw]
    ordered = sorted(raw)
    return [ordered[round(index * (len(raw) - 1) / (KEPT - 1))] for index in range(KEPT)]


def _rich(scenario: str, table: Table) -> RichTable:
    shown = RichTable(title=f"{scenario}: {table.title}", title_justify="left")
    shown.add_column("figure")
    for index, column in enumerate(table.columns):
        shown.add_column(column, justify="right")
        if index and table.ratios:
            shown.add_column("ratio", justify="right", style="bold")
    for row in table.rows:
        cells = [f"{row.name}, {row.unit}" if row.unit else row.name]
        for index, value in enumerate(row.values):
            cells.append(number(value))
            if index and table.ratios:
                cells.append(ratio(row, index))
        shown.add_row(*cells)
    return shown


def number(value: float | None) -> str:
    """As tables show it."""
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ratio(row: Row, against: int) -> str:
    """How many times better the first column is than the column ``against``."""
    times = row.ratio(against)
    return "" if times is None else f"{times:.2g}x" if times < 10 else f"{times:.0f}x"
