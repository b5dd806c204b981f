"""How large the processes of a scenario are: connections to either server, threads, memory.

After a round no process has more than its *limits*, and a server has no connection that is no living
process's. A limit is what the product's own code opens when every pool is full, and nothing is added
to it. What a process had before is none: a pool opens a connection when more are at work at once than
ever before, which depends on the moment, so that two quiet systems may differ by the whole pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import psutil

from benchmarks.processes import MEGABYTE
from benchmarks.servers import Place
from llmchatlinker.settings import PREFIX
from llmchatlinker.sizing import BROKER_CONNECTIONS, CLIENT_BROKER_CONNECTIONS

POSTGRESQL, RABBITMQ, THREADS = "connections to postgresql", "connections to rabbitmq", "threads"
COUNTS = (POSTGRESQL, RABBITMQ, THREADS)
WORKER, CLIENT = "a worker", "the client"

#: Threads beside those that work on instructions, by name; each is there once, when it was needed.
WORKER_THREADS = (
    "main", "sweeper", "leases", "events", "streams", "calls", "hints", "alarms",
)  # fmt: skip
#: ``replies`` twice: hints and pushes have a queue each. ``database bounds``: of submissions.
CLIENT_THREADS = ("main", "replies", "replies", "results", "followers", "hints", "database bounds")


@dataclass(frozen=True)
class Sizes:
    """Of one process. ``counts``: connections and threads; ``memory``: MB."""

    counts: Mapping[str, int]
    memory: float


def of(pid: int, place: Place) -> Sizes | None:
    """Of the process with that pid; None when it has just died."""
    ports = {
        POSTGRESQL: urlsplit(place.database_url).port,
        RABBITMQ: urlsplit(place.broker_url).port,
    }
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        remote = [
            connection.raddr.port
            for connection in process.net_connections("tcp")
            if connection.raddr and connection.status == psutil.CONN_ESTABLISHED
        ]
        counts = {name: sum(one == port for one in remote) for name, port in ports.items()}
        counts[THREADS] = process.num_threads()
        return Sizes(counts, round(process.memory_info().rss / MEGABYTE, 1))
    return None


def most(all_sizes: Iterable[Sizes]) -> Sizes:
    """Of each, what the process with most of it has."""
    kept = list(all_sizes)
    counts = {name: max(sizes.counts[name] for sizes in kept) for name in COUNTS}
    return Sizes(counts, max(sizes.memory for sizes in kept))


def limits(settings: Mapping[str, str], concurrency: int) -> dict[str, dict[str, int]]:
    """What a process with these settings may have, by its kind.

    PostgreSQL: the one pool of a process, which opens no more than its size (``db/sessions.py``,
    ``max_overflow=0``), and through which everything goes. RabbitMQ: kombu's one pool, and what stands
    with ``BROKER_CONNECTIONS`` beside it.
    """
    database = int(settings[PREFIX + "DATABASE_POOL_SIZE"])
    broker = int(settings[PREFIX + "BROKER_POOL_SIZE"])
    return {
        WORKER: {
            POSTGRESQL: database,
            RABBITMQ: broker + BROKER_CONNECTIONS,
            THREADS: concurrency + len(WORKER_THREADS),
        },
        CLIENT: {
            POSTGRESQL: database,
            RABBITMQ: broker + CLIENT_BROKER_CONNECTIONS,
            THREADS: len(CLIENT_THREADS),
        },
    }


def beyond(now: Sizes, most: Mapping[str, int], whose: str) -> list[str]:
    """What there is more of than there may be, as sentences."""
    return [
        f"{whose}: {now.counts[name]} {name}, of which it may have {limit}"
        for name, limit in most.items()
        if now.counts[name] > limit
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
