"""The model of ``llmchatlinker/sizing.py`` beside what was measured, for docs/scaling.md.

Takes what the scenario ``scale`` measured: full cycles per second at 1, 2 and 4 worker processes, and
the CPU of everybody with one. From that CPU alone the model says what the rates should be.
"""

from __future__ import annotations

import re

from benchmarks.bench import CPU_OF_CLIENTS, CPU_OF_POSTGRESQL, CPU_OF_RABBITMQ, CPU_OF_WORKERS
from benchmarks.results import Results
from llmchatlinker.sizing import Costs, cycles_per_second

TABLE = "worker processes"
RATE = "full cycles per second"


def comparison(results: Results) -> str:
    """The table. Raises Missing where ``scale`` has not been run."""
    rates = results.row("scale", TABLE, RATE)
    cycle, client, rabbitmq, postgresql = (
        results.ours("scale", TABLE, row) / 1000
        for row in (CPU_OF_WORKERS, CPU_OF_CLIENTS, CPU_OF_RABBITMQ, CPU_OF_POSTGRESQL)
    )
    costs = Costs(cycle=cycle, client=client, rabbitmq=rabbitmq, postgresql=postgresql)
    scale = results.found["scale"]
    columns = next(table.columns for table in scale.tables if table.title == TABLE)
    parts = (
        ("a worker", cycle),
        ("a client", client),
        ("RabbitMQ", rabbitmq),
        ("PostgreSQL", postgresql),
    )
    cpu = ", ".join(f"{name} {seconds * 1000:.1f} ms" for name, seconds in parts)
    lines = [
        f"{scale.when()} CPU per cycle with one worker process: {cpu}.",
        "",
        "| worker processes | measured, cycles per second | the model | model : measured |",
        "|---|---|---|---|",
    ]
    for column, rate in zip(columns, rates, strict=True):
        number = int(re.match(r"\d+", column)[0])  # type: ignore[index]  # "2 worker(s)"
        model = cycles_per_second(number, scale.machine["cores"], costs)
        assert rate is not None
        lines.append(f"| {number} | {rate:.0f} | {model:.0f} | {model / rate:.2f} |")
    return "\n".join(lines)
