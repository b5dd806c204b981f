"""The table that holds the queueing model against a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.model import comparison
from benchmarks.results import Missing, Results, read

ROWS = {
    "full cycles per second": [80.0, 95.0, 90.0],
    "CPU of the workers per 1000": [10.0, 11.0, 12.0],
    "CPU of the clients per 1000": [2.0, 2.0, 2.0],
    "CPU of RabbitMQ per 1000": [4.0, 4.0, 4.0],
    "CPU of PostgreSQL per 1000": [4.0, 4.0, 4.0],
}


@pytest.fixture
def measured(tmp_path: Path) -> Results:
    """As the scenario ``scale`` writes it: 10 ms of the worker's CPU, 20 ms of everybody's."""
    rows = [
        {"name": name, "unit": "", "values": row, "better": "lower"} for name, row in ROWS.items()
    ]
    document = {
        "scenario": "scale",
        "quick": True,
        "machine": {
            "date": "2026-11-23T08:00:00+00:00",
            "cores": 2,
            "load": [0.25, 0.0, 0.0],
            "commit": "0123456789abcdef",
        },
        "tables": [
            {
                "title": "worker processes",
                "columns": ["1 worker(s)", "2 worker(s)", "4 worker(s)"],
                "rows": rows,
                "ratios": False,
            }
        ],
        "notes": [],
        "failures": [],
    }
    (tmp_path / "scale.json").write_text(json.dumps(document))
    return read(tmp_path)


def test_each_number_of_processes_has_a_row(measured: Results) -> None:
    lines = comparison(measured).splitlines()
    assert lines[0].startswith(
        "2026-11-23, 2 cores, load 0.2 at the start, commit 012345678, a short run."
    )
    assert lines[-3:] == [
        "| 1 | 80 | 100 | 1.25 |",
        "| 2 | 95 | 100 | 1.05 |",
        "| 4 | 90 | 100 | 1.11 |",
    ]


def test_without_a_measurement_there_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="scale"):
        comparison(read(tmp_path))
