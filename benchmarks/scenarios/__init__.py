"""The scenarios, in the order in which they run."""

from __future__ import annotations

from benchmarks.bench import Scenario
from benchmarks.scenarios import (
    cancel,
    gateway,
    hints_lost,
    latency,
    llm_concurrency,
    memory,
    purge,
    scale,
    start_up,
    streams,
    throughput,
    turns,
    waiters,
)

SCENARIOS: dict[str, Scenario] = {
    "latency": latency.run,
    "throughput": throughput.run,
    "waiters": waiters.run,
    "hints-lost": hints_lost.run,
    "llm-concurrency": llm_concurrency.run,
    "streams": streams.run,
    "turns": turns.run,
    "cancel": cancel.run,
    "gateway": gateway.run,
    "scale": scale.run,
    "start-up": start_up.run,
    "memory": memory.run,
    "purge": purge.run,
}

#: Those that run only where they are asked for: an hour and 30 GB are not for every run.
ASKED_FOR = ("purge",)
