"""Whether a system has come to rest: nothing under way in PostgreSQL, nothing in RabbitMQ."""

from __future__ import annotations

import time

import psycopg2

from benchmarks.servers import Place
from llmchatlinker.topology import DEAD_LETTER_QUEUE, QUEUE_NAMES
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError

LOOK = 0.1  # seconds between two looks at a system that is to become quiet
#: The clients' own queues, of which each client has one of a kind.
REPLIES = ("llmchatlinker.reply.", "llmchatlinker.events.")

_BUSY = """
    SELECT (SELECT count(*) FROM instructions WHERE final_at IS NULL),
           (SELECT count(*) FROM instructions WHERE turn IN ('queued', 'active')),
           (SELECT count(*) FROM attempts WHERE status = 'started'),
           (SELECT count(*) FROM messages WHERE status = 'generating'),
           (SELECT count(*) FROM waiters JOIN instructions ON instructions.id = instruction_id
             WHERE waiters.created_at < final_at - interval '1 second'),
           (SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state LIKE 'idle in transaction%%')
"""
_BUSY_NAMES = (
    "open instructions",
    "turns not done",
    "calls started in the ledger",
    "messages generating",
    "waiters of what has ended",
    "connections in a transaction",
)


def busy(place: Place) -> str:
    """What PostgreSQL has that is not at its end; empty when it is quiet."""
    (counts,) = place.sql(_BUSY)
    return ", ".join(f"{n} {name}" for n, name in zip(counts, _BUSY_NAMES, strict=True) if n)


def queued(place: Place, rabbitmq: PrivateRabbitMQ, workers: int, clients: int = 1) -> str:
    """What RabbitMQ has that is not at its end, consumers that are missing and queues left over."""
    queues = rabbitmq.queues(place.name)
    wrong = []
    for name in (*QUEUE_NAMES, DEAD_LETTER_QUEUE):
        ready, unacknowledged, consumers = queues.get(name, (0, 0, 0))
        if ready or unacknowledged:
            wrong.append(f"{name}: {ready} ready, {unacknowledged} unacknowledged")
        if name != DEAD_LETTER_QUEUE and consumers != workers:
            wrong.append(f"{name}: {consumers} of {workers} consumers")
    for kind in REPLIES:
        replies = [counts for name, counts in queues.items() if name.startswith(kind)]
        if len(replies) > clients:
            wrong.append(f"{len(replies)} queues {kind}…")
        if any(ready for ready, *_ in replies):
            wrong.append(f"{kind}…: messages that nobody takes")
    return ", ".join(wrong)


def wait_until_quiet(place: Place, rabbitmq: PrivateRabbitMQ, workers: int, patience: float) -> str:
    """Return an empty text once nothing is under way; what still is, when patience is over."""
    end = time.monotonic() + patience
    while True:
        try:
            left = busy(place) or queued(place, rabbitmq, workers)
        except (psycopg2.Error, RabbitMQError, OSError) as error:
            left = f"{type(error).__name__}: {error}"
        if not left or time.monotonic() > end:
            return left
        time.sleep(LOOK)
