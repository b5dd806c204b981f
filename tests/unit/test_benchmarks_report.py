"""The figures of the docs are those of ``benchmarks/results/``, and nobody has typed them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import report, targets
from benchmarks.figures import Row, Table
from benchmarks.machine import ROOT, commit
from benchmarks.report import PAGES, plots, put_between, texts
from benchmarks.results import Result, Results, read

REMEDY = "python -m benchmarks.report"
MACHINE = {"date": "2026-11-23T08:00:00+00:00", "cores": 2, "load": [0.25, 0.0, 0.0]}


def of_latency(ours: float, *stock: float) -> Results:
    """A result of ``latency``, with stock's ``get()`` as it comes; tuned, it takes half as long."""
    columns = ("ours", "stock (threads)", "stock (prefork)")
    tables = [
        Table(title, columns, [Row("submit → envelope p50", "ms", (ours, *values))])
        for title, values in (
            ("One at a time", [value / 2 for value in stock]),
            ("With get() as it comes", list(stock)),
        )
    ]
    return Results({"latency": Result("latency", False, MACHINE, tables, [], [])})


@pytest.mark.parametrize("path", [*PAGES, "llmchatlinker/measured.py"])
def test_a_file_with_figures_is_what_the_results_say(path: str) -> None:
    assert texts(read())[path] == (ROOT / path).read_text(encoding="utf-8"), REMEDY


def test_the_plots_of_the_pages_are_those_of_the_results() -> None:
    there = {path.name: path.read_bytes() for path in (ROOT / "docs/images").glob("bench-*.svg")}
    assert there == {Path(path).name: content for path, content in plots().items()}, REMEDY


def test_results_that_change_are_written_into_the_pages(tmp_path: Path) -> None:
    for path in (*PAGES, "llmchatlinker/measured.py", "benchmarks/results/latency.json"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    latency = tmp_path / "benchmarks/results/latency.json"
    latency.write_text(latency.read_text().replace('"cores": 2', '"cores": 96'))
    report.write(tmp_path)
    assert "96 cores" in (tmp_path / "docs/performance.md").read_text(encoding="utf-8")


def test_what_is_written_takes_the_place_of_what_was_there() -> None:
    page = "before\n<!-- benchmarks: x -->\nold\n<!-- /benchmarks: x -->\nafter\n"
    assert put_between(put_between(page, "x", "new"), "x", "newer") == (
        "before\n<!-- benchmarks: x -->\n\nnewer\n\n<!-- /benchmarks: x -->\nafter\n"
    )


def test_a_page_without_its_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no"):
        put_between("<!-- benchmarks: x -->", "x", "new")


@pytest.mark.parametrize(("ours", "reached"), [(4.0, "the aim"), (9.0, "at least"), (11.0, "no")])
def test_a_target_is_reached_by_its_figure(ours: float, reached: str) -> None:
    line = targets.table(of_latency(ours, 100.0, 50.0)).splitlines()[2]
    assert line.endswith(f"| {reached} |")


def test_stock_is_taken_at_its_better_pool() -> None:
    line = targets.table(of_latency(4.0, 100.0, 10.0)).splitlines()[2]
    tuned = "(1.2 times where stock's `get()` looks every 10 ms)"
    assert line.endswith(f"| 4.0 ms, 2.5 times better {tuned} | no |")


def test_a_target_whose_scenario_was_not_run_says_so() -> None:
    lines = targets.table(Results({})).splitlines()[2:]
    assert all(line.endswith("| not yet |  |") for line in lines)


# --- the commit -----------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With one file in one commit."""
    (tmp_path / "code.py").write_text("1\n")
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "One"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_result_names_the_commit_it_was_measured_with(repository: Path) -> None:
    told = commit(repository)
    assert told is not None
    assert len(told) == 40


def test_a_commit_with_changes_on_top_is_marked(repository: Path) -> None:
    clean = commit(repository)
    (repository / "code.py").write_text("2\n")
    assert commit(repository) == f"{clean}+"


def test_where_there_is_no_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) is None
