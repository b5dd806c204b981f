"""What stands on the broker: an exchange, a queue per unit, and where the undeliverable goes.

Queues are declared with their type and nothing else: limits and dead-lettering are policies, because
a queue's arguments can never change again (``broker_policies.py``).
"""

from __future__ import annotations

from typing import Any

from kombu import Exchange, Queue

EXCHANGE = "llmchatlinker"
DEAD_LETTER_EXCHANGE = "llmchatlinker.dead"
DEAD_LETTER_QUEUE = "dead_letters"

CONTROL = "control"
DATABASE = "database"
GENERATE = "llm.generate"
#: Every queue that a worker may consume, in the order in which `inspect active_queues` shows them.
QUEUE_NAMES = (CONTROL, "user", "chat", "llm", GENERATE, DATABASE)

DECODE_TASK = "llmchatlinker.control.decode"
STORE_TASK = "llmchatlinker.database.store"
_GENERATING_TASKS = (
    "llmchatlinker.llm.llm_response_generate",
    "llmchatlinker.llm.llm_response_regenerate",
)

#: Quorum queues keep a message on a majority of nodes before it is confirmed.
_QUORUM = {"x-queue-type": "quorum"}

exchange = Exchange(EXCHANGE, type="topic", durable=True)
dead_letter_exchange = Exchange(DEAD_LETTER_EXCHANGE, type="fanout", durable=True)
dead_letter_queue = Queue(
    DEAD_LETTER_QUEUE, dead_letter_exchange, durable=True, queue_arguments=_QUORUM
)


def task_queues() -> tuple[Queue, ...]:
    """The queues, each with its own binding.

    A Queue without both exchange and key is bound to the default key, and then every message reaches
    every queue.
    """
    return tuple(
        Queue(name, exchange, routing_key=name, durable=True, queue_arguments=_QUORUM)
        for name in QUEUE_NAMES
    )


def route(name: str, *_: Any, **__: Any) -> dict[str, str] | None:
    """The queue of a task, from its name: ``llmchatlinker.<unit>.<instruction type>``."""
    if name in _GENERATING_TASKS:
        return {"queue": GENERATE}
    parts = name.split(".")
    if len(parts) == 3 and parts[0] == "llmchatlinker" and parts[1] in QUEUE_NAMES:
        return {"queue": parts[1]}
    return None
