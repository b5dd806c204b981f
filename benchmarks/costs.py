"""What an instruction costs, by the results, for ``llmchatlinker/measured.py`` and docs/scaling.md.

A cycle's CPU is that of one at a time, where nothing is shared between instructions that happen to come
together. A generation is that many cycles, both under load.
"""

from __future__ import annotations

from benchmarks.bench import (
    CPU_OF_CLIENTS,
    CPU_OF_POSTGRESQL,
    CPU_OF_RABBITMQ,
    CPU_OF_WORKERS,
    MEMORY_OF_WORKERS,
)
from benchmarks.results import Missing, Results
from llmchatlinker import sizing

#: A generation in cycles, as long as it was not measured.
GENERATION = 2.5
_OTHERS = ("CLIENT", "RABBITMQ", "POSTGRESQL")
_ROWS = (
    ("CYCLE", CPU_OF_WORKERS, 1000),
    ("CLIENT", CPU_OF_CLIENTS, 1000),
    ("RABBITMQ", CPU_OF_RABBITMQ, 1000),
    ("POSTGRESQL", CPU_OF_POSTGRESQL, 1000),
    ("PROCESS_MEMORY", MEMORY_OF_WORKERS, 1),
)


def measured(results: Results) -> dict[str, float]:
    """The constants. Raises Missing where ``latency`` was not run."""
    found = {
        name: round(
            results.ours("latency", "One at a time", row) / divisor, 4 if divisor > 1 else 0
        )
        for name, row, divisor in _ROWS
    }
    try:
        generation = results.ours("gateway", "64 callers", CPU_OF_WORKERS)
        found["GENERATION"] = round(
            generation / results.ours("throughput", "8 client", CPU_OF_WORKERS), 1
        )
    except Missing:
        found["GENERATION"] = GENERATION
    return found


def of(results: Results) -> sizing.Costs:
    """The same as the model takes them."""
    found = {name.lower(): value for name, value in measured(results).items()}
    return sizing.Costs(**found)


def module(results: Results) -> str:
    """``llmchatlinker/measured.py``. Raises Missing."""
    found = measured(results)
    machine = results.found["latency"].machine
    return f'''"""What instructions cost, in CPU seconds and MB.

Measured {machine["date"][:10]} on {machine["cores"]} cores.
Written by ``python -m benchmarks.report`` from ``benchmarks/results/``.
"""

#: CPU of worker processes for one cycle that reads.
CYCLE = {found["CYCLE"]}
#: The same for a generation, in cycles.
GENERATION = {found["GENERATION"]}
CLIENT = {found["CLIENT"]}
RABBITMQ = {found["RABBITMQ"]}
POSTGRESQL = {found["POSTGRESQL"]}
#: A worker process with next to nothing to do.
PROCESS_MEMORY = {found["PROCESS_MEMORY"]}
'''


def sentence(results: Results) -> str:
    """For docs/scaling.md. Raises Missing."""
    found = measured(results)
    ms = {name: f"{found[name] * 1000:.1f} ms" for name in ("CYCLE", *_OTHERS)}
    return (
        f"As measured: an instruction takes a worker {ms['CYCLE']} of CPU over all its stages, a "
        f"generation {found['GENERATION']} times that; beside them PostgreSQL takes "
        f"{ms['POSTGRESQL']}, RabbitMQ {ms['RABBITMQ']} and the client {ms['CLIENT']}. A worker "
        f"process has {found['PROCESS_MEMORY']:.0f} MB."
    )
