"""The table that holds the queueing model against a measurement."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.model import BEGIN, END, comparison, put_between
from llmchatlinker.errors import InvalidData


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """As the scenario ``scale`` writes it: 10 ms of the worker's CPU, 20 ms of everybody's."""
    rows = {
        "full cycles per second": [80.0, 95.0, 90.0],
        "CPU of the workers per 1000": [10.0, 11.0, 12.0],
        "CPU of the clients per 1000": [2.0, 2.0, 2.0],
        "CPU of RabbitMQ per 1000": [4.0, 4.0, 4.0],
        "CPU of PostgreSQL per 1000": [4.0, 4.0, 4.0],
    }
    document = {
        "quick": True,
        "machine": {"date": "2026-11-23T08:00:00+00:00", "cores": 2, "load": [0.25, 0.0, 0.0]},
        "tables": [{"rows": [{"name": name, "values": row} for name, row in rows.items()]}],
        "raw": {"workers": {"1": [], "2": [], "4": []}},
    }
    path = tmp_path / "scale.json"
    path.write_text(json.dumps(document))
    return path


def test_each_number_of_processes_has_a_row(measured: Path) -> None:
    lines = comparison(measured).splitlines()
    assert lines[0].startswith("2026-11-23, 2 cores, load 0.2 at the start, a short run.")
    assert lines[-3:] == [
        "| 1 | 80 | 100 | 1.25 |",
        "| 2 | 95 | 100 | 1.05 |",
        "| 4 | 90 | 100 | 1.11 |",
    ]


def test_a_result_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text('{"tables": [{"rows": []}]}')
    with pytest.raises(InvalidData, match="CPU"):
        comparison(path)


def test_the_table_takes_the_place_of_the_last_one() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert put_between(put_between(page, "new"), "newer") == (
        f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"
    )


def test_a_page_without_the_marks_is_left_alone() -> None:
    with pytest.raises(ValueError, match="has no"):
        put_between(f"{END} {BEGIN}", "new")


def test_the_page_has_the_marks() -> None:
    page = Path(__file__).parents[2] / "docs" / "scaling.md"
    assert put_between(page.read_text(encoding="utf-8"), "new").count("new") > 0
