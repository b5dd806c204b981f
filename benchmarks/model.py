"""``python -m benchmarks.model [scale.json] [--write PAGE]``: the model beside what was measured.

Takes what the scenario ``scale`` measured: full cycles per second at 1, 2 and 4 worker processes, and
the CPU of everybody with one. From that CPU alone ``llmchatlinker/sizing.py`` says what the rates
should be. Prints a table in Markdown; ``--write`` puts it into a page, between its two marks.

Exit codes: 0 done, 1 the file or the page is not what it should be.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.__main__ import RESULTS
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.sizing import costs_of, cycles_per_second

BEGIN, END = "<!-- benchmarks.model -->", "<!-- /benchmarks.model -->"
RATE = "full cycles per second"


def comparison(path: Path) -> str:
    """The table. Raises InvalidData or LookupError where the file is not of ``scale``."""
    costs = costs_of(path)
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    machine, table = document["machine"], document["tables"][0]
    processes = [int(name) for name in document["raw"]["workers"]]
    measured = next(row["values"] for row in table["rows"] if row["name"] == RATE)
    parts = (
        ("a worker", costs.cycle),
        ("a client", costs.client),
        ("RabbitMQ", costs.rabbitmq),
        ("PostgreSQL", costs.postgresql),
    )
    cpu = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in parts)
    lines = [
        f"{machine['date'][:10]}, {machine['cores']} cores, load {machine['load'][0]:.1f} at the start"
        f"{', a short run' if document['quick'] else ''}. CPU per cycle: {cpu}.",
        "",
        "| worker processes | measured, cycles per second | the model | model : measured |",
        "|---|---|---|---|",
    ]
    for number, rate in zip(processes, measured, strict=True):
        model = cycles_per_second(number, machine["cores"], costs)
        lines.append(f"| {number} | {rate:.0f} | {model:.0f} | {model / rate:.2f} |")
    return "\n".join(lines)


def put_between(text: str, table: str) -> str:
    """``text`` with the table between the marks. Raises ValueError where they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page has no {BEGIN} with {END} behind it.")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.model", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="docs/scaling.md, say")
    chosen = parser.parse_args()
    try:
        table = comparison(chosen.file)
        if chosen.write:
            page = chosen.write.read_text(encoding="utf-8")
            chosen.write.write_text(put_between(page, table), encoding="utf-8")
    except (LLMChatLinkerError, LookupError, ValueError, OSError) as error:
        print(f"error: {chosen.file}: {error}", file=sys.stderr)
        return 1
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
