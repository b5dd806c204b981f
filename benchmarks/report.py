"""``python -m benchmarks.report``: what was measured, into the pages that tell of it.

``benchmarks/results/*.json`` is where every figure of the docs comes from. Written are what stands
between ``<!-- benchmarks: NAME -->`` and ``<!-- /benchmarks: NAME -->`` in the pages, the plots in
``docs/images/``, and ``llmchatlinker/measured.py``, from which the model of sizes takes its costs.
``make bench`` does this at its end; by hand it is needed after JSON files were put there otherwise.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import costs, model, targets
from benchmarks.machine import ROOT
from benchmarks.output import number, ratio
from benchmarks.results import RESULTS, Missing, Result, Results, read
from benchmarks.scenarios import SCENARIOS
from llmchatlinker import sizing
from llmchatlinker.cli.sizing import show

NOTHING = "Not measured yet."


def write(root: Path = ROOT) -> None:
    """All of it. Raises ValueError where a page has lost its marks."""
    results = read(root / RESULTS.relative_to(ROOT))
    files = {path: text.encode() for path, text in texts(results, root).items()} | plots(root)
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def texts(results: Results, root: Path = ROOT) -> dict[str, str]:
    """The files that have figures in them, by their path, as they should be."""
    found = {}
    with contextlib.suppress(Missing):
        found["llmchatlinker/measured.py"] = costs.module(results)
    for page, blocks in PAGES.items():
        text = (root / page).read_text(encoding="utf-8")
        for name, block in blocks.items():
            try:
                inner = block(results)
            except Missing:
                inner = NOTHING
            text = put_between(text, name, inner)
        found[page] = text
    return found


def plots(root: Path = ROOT) -> dict[str, bytes]:
    """The plots for the pages, by their path."""
    folder = root / RESULTS.relative_to(ROOT)
    return {_image(path.stem): path.read_bytes() for path in sorted(folder.glob("*.svg"))}


def put_between(text: str, name: str, inner: str) -> str:
    """``text`` with ``inner`` between the marks of ``name``. Raises ValueError without marks."""
    begin, end = f"<!-- benchmarks: {name} -->", f"<!-- /benchmarks: {name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"The page has no {begin} with {end} behind it.")
    return f"{before}{begin}\n\n{inner}\n\n{end}{after}"


def _image(scenario: str) -> str:
    return f"docs/images/bench-{scenario}.svg"


# --- what stands between the marks ----------------------------------------------------------------


def figures(results: Results) -> str:
    """Every scenario, in the order in which they run: tables, notes and the plot."""
    parts = []
    for name in SCENARIOS:
        if result := results.found.get(name):
            parts.append(_scenario(name, result))
        else:
            parts.append(f"### {name}\n\n{NOTHING}")
    return "\n\n".join(parts)


def _scenario(name: str, result: Result) -> str:
    parts = [f"### {name}", result.when()]
    for table in result.tables:
        head = ["figure", table.columns[0]]
        for column in table.columns[1:]:
            head += [column, "ratio"] if table.ratios else [column]
        lines = [head, ["---"] * len(head)]
        for row in table.rows:
            cells = [f"{row.name}, {row.unit}" if row.unit else row.name, number(row.values[0])]
            for index, value in enumerate(row.values[1:], start=1):
                cells += [number(value), ratio(row, index)] if table.ratios else [number(value)]
            lines.append(cells)
        parts.append(f"**{table.title}**")
        parts.append("\n".join("| " + " | ".join(cells) + " |" for cells in lines))
    parts += [f"Note: {note}" for note in result.notes]
    parts += [f"Failed: {failure}" for failure in result.failures]
    if (RESULTS / f"{name}.svg").exists():
        parts.append(f"![{name}: the same as bars or lines]({_image(name).removeprefix('docs/')})")
    return "\n\n".join(parts)


def sizing_example(results: Results) -> str:
    """What the command in docs/scaling.md prints, with the costs of these results."""
    load = sizing.Load(rate=50.0, other_rate=100.0, call_seconds=4.0, concurrency=200, spare=1)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        show(sizing.plan(load, costs.of(results)), load)
    return f"```text\n{printed.getvalue().strip()}\n```"


def cycle_beside_celery(results: Results) -> str:
    """For docs/comparison.md."""
    title, name = "One at a time", "submit → envelope"
    rows = {p: results.row("latency", title, f"{name} {p}") for p in ("p50", "p95", "p99")}
    lines = ["| | LLMChatLinker | Celery, threads | Celery, prefork |", "|---|---|---|---|"]
    for percentile, values in rows.items():
        cells = " | ".join(f"{number(value)} ms" for value in values)
        lines.append(f"| {percentile} | {cells} |")
    result = results.found["latency"]
    notes = [re.sub("^stock", "Celery", note) for note in result.notes if "interval" in note]
    return "\n\n".join([result.when(), "\n".join(lines), *notes])


PAGES: dict[str, dict[str, Callable[[Results], str]]] = {
    "docs/performance.md": {"targets": targets.table, "figures": figures},
    "docs/scaling.md": {
        "sizing": sizing_example,
        "costs": costs.sentence,
        "model": model.comparison,
    },
    "docs/comparison.md": {"cycle": cycle_beside_celery},
}


def main() -> int:
    """The command line."""
    try:
        write()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
