"""How large the processes of a scenario are: connections to either server, threads, memory.

A *baseline* is taken when the world has worked for the first time and is quiet. After a round no process
may have more than that, but for what a pool may still open; and a server has no connection that is no
living process's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from benchmarks.processes import MEGABYTE
from benchmarks.servers import Place
from llmchatlinker.settings import Settings

#: So many more than at the baseline: not every round needs as many at once.
SLACK = {"connections to postgresql": 4, "connections to rabbitmq": 4, "threads": 8}
#: So many a process may have in any case: its pool, and a worker's own for messages, events and hints.
ALWAYS = {"connections to rabbitmq": Settings().broker_pool_size + 3}


@dataclass(frozen=True)
class Sizes:
    """Of one process. ``counts``: connections and threads; ``memory``: MB."""

    counts: Mapping[str, int]
    memory: float


def of(pid: int, place: Place) -> Sizes | None:
    """Of the process with that pid; None when it has just died."""
    ports = {
        "connections to postgresql": urlsplit(place.database_url).port,
        "connections to rabbitmq": urlsplit(place.broker_url).port,
    }
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        remote = [
            connection.raddr.port
            for connection in process.net_connections("tcp")
            if connection.raddr and connection.status == psutil.CONN_ESTABLISHED
        ]
        counts = {name: sum(one == port for one in remote) for name, port in ports.items()}
        counts["threads"] = process.num_threads()
        return Sizes(counts, round(process.memory_info().rss / MEGABYTE, 1))
    return None


def most(all_sizes: Iterable[Sizes]) -> Sizes:
    """Of each, what the process with most of it has."""
    kept = list(all_sizes)
    counts = {name: max(sizes.counts[name] for sizes in kept) for name in SLACK}
    return Sizes(counts, max(sizes.memory for sizes in kept))


def beyond(now: Sizes, baseline: Sizes, whose: str) -> list[str]:
    """What there is more of than at the baseline, as sentences."""
    return [
        f"{whose}: {now.counts[name]} {name}, {baseline.counts[name]} when all was quiet before"
        for name, slack in SLACK.items()
        if now.counts[name] > max(baseline.counts[name] + slack, ALWAYS.get(name, 0))
    ]


def of_nobody(at_server: Mapping[str, int], processes: Iterable[Sizes]) -> list[str]:
    """Connections that a server has and none of the processes."""
    kept = list(processes)
    sentences = []
    for name, count in at_server.items():
        ours = sum(sizes.counts[name] for sizes in kept)
        if count > ours:
            sentences.append(f"{count} {name}, of which living processes have {ours}")
    return sentences
