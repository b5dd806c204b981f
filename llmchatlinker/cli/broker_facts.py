"""What can be seen of the broker from a client: queues, and the workers that answer.

Over AMQP and remote control alone, so that no management plugin is needed. The embedded broker is
PostgreSQL; its workers leave heartbeat files.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from amqp.exceptions import AccessRefused, ChannelError, NotFound
from kombu.exceptions import OperationalError

from llmchatlinker.celery_app import app
from llmchatlinker.db.sessions import database
from llmchatlinker.errors import ConfigurationError, Unavailable
from llmchatlinker.settings import get_settings, without_password
from llmchatlinker.topology import DEAD_LETTER_QUEUE, QUEUE_NAMES

#: Seconds that workers have to answer to who does not know how many there are.
ANSWER_SECONDS = 1.5
#: The same for those that are there: their names are known, or the broker counts them as consumers.
KNOWN_SECONDS = 10.0
#: Seconds before a further look where it counts nobody: so it answers for a queue that is too busy to
#: say, too (``rabbit_quorum_queue.erl``, ``stat``).
COUNTED_AGAIN = (0.5, 1.0)

_EMBEDDED_DEPTH = """
    SELECT kombu_queue.name, count(*) FROM kombu_message
      JOIN kombu_queue ON kombu_queue.id = kombu_message.queue_id
     WHERE kombu_message.visible GROUP BY kombu_queue.name
"""


@dataclass(slots=True)
class Queue:
    """``ready``: messages that wait; None where there is no such queue. ``consumers``: None where
    nobody knows.
    """

    name: str
    ready: int | None = None
    consumers: int | None = None


@dataclass(slots=True)
class Worker:
    """A worker that answers. ``slots``: threads; ``active``: stages that it is at, by queue."""

    name: str
    queues: list[str] = field(default_factory=list)
    slots: int | None = None
    active: dict[str, int] = field(default_factory=dict)
    done: int | None = None
    uptime: float | None = None


@contextmanager
def connected() -> Iterator[Any]:
    """A connection to the broker. Raises Unavailable, and ConfigurationError where it lets nobody in."""
    settings = get_settings()
    address = without_password(settings.broker_url)
    connection = app.connection_for_write()
    try:
        try:
            nodes = len(settings.broker_addresses)
            connection.ensure_connection(max_retries=nodes, timeout=settings.client_patience)
        except AccessRefused:
            raise ConfigurationError(
                f"The broker at {address} refuses this user or password.",
                {"remedy": "Set LLMCHATLINKER_BROKER_URL; `rabbitmqctl list_users` shows users."},
            ) from None
        except (OperationalError, OSError, ChannelError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise Unavailable(
                f"The broker at {address} does not answer: {reason}.",
                {"remedy": "Check that it runs and that LLMCHATLINKER_BROKER_URL is right."},
            ) from None
        yield connection
    finally:
        connection.release()


def queues() -> list[Queue]:
    """Every queue of ours, and that of dead letters."""
    if get_settings().broker_is_embedded:
        rows = database().statement(_EMBEDDED_DEPTH, {}, patience=get_settings().client_patience)
        depth = dict(rows)
        return [Queue(name, depth.get(name, 0)) for name in QUEUE_NAMES]
    with connected() as connection:
        return [_queue(connection, name) for name in (*QUEUE_NAMES, DEAD_LETTER_QUEUE)]


def _queue(connection: Any, name: str) -> Queue:
    try:
        with connection.channel() as channel:
            found = channel.queue_declare(queue=name, passive=True)
    except NotFound:
        return Queue(name)
    return Queue(name, found.message_count, found.consumer_count)


def workers() -> list[Worker]:
    """Those that answer in time; more time where the broker knows of more that consume.

    Raises ConfigurationError where this user may not ask them.
    """
    if get_settings().broker_is_embedded:
        return _embedded_workers()
    with connected() as connection:
        try:
            found = _answering(connection, ANSWER_SECONDS)
            if _some_are_silent(connection, found):
                found = _answering(connection, KNOWN_SECONDS)
        except (AccessRefused, ChannelError):
            raise ConfigurationError(
                "This user of the broker may not ask the workers.",
                {"remedy": "`llmchatlinker broker user NAME --role worker` makes one that may."},
            ) from None
    return found


def _answering(connection: Any, seconds: float) -> list[Worker]:
    ask = app.control.inspect(timeout=seconds, connection=connection)
    names = sorted(ask.ping() or {})
    if not names:
        return []
    # Over as soon as all of them have answered.
    ask = app.control.inspect(names, timeout=KNOWN_SECONDS, limit=len(names), connection=connection)
    serving, stats, active = ask.active_queues() or {}, ask.stats() or {}, ask.active() or {}
    return [
        _worker(name, serving.get(name) or [], stats.get(name) or {}, active.get(name) or [])
        for name in names
    ]


def _some_are_silent(connection: Any, found: list[Worker]) -> bool:
    serving = Counter(name for worker in found for name in worker.queues)
    for pause in (0.0, *COUNTED_AGAIN):
        threading.Event().wait(pause)  # time.sleep fails where libfaketime sets the clock
        there = [_queue(connection, name) for name in QUEUE_NAMES]
        if any((queue.consumers or 0) > serving[queue.name] for queue in there):
            return True
        if found or any(queue.consumers is None for queue in there):
            return False  # somebody has answered, or nobody was ever there
    return False


def _worker(
    name: str, serving: list[dict[str, Any]], stats: dict[str, Any], active: list[dict[str, Any]]
) -> Worker:
    worker = Worker(name, sorted(queue["name"] for queue in serving))
    worker.slots = (stats.get("pool") or {}).get("max-concurrency")
    worker.done = sum((stats.get("total") or {}).values())
    worker.uptime = stats.get("uptime")
    for task in active:
        queue = (task.get("delivery_info") or {}).get("routing_key") or "?"
        worker.active[queue] = worker.active.get(queue, 0) + 1
    return worker


def _embedded_workers() -> list[Worker]:
    from llmchatlinker import health
    from llmchatlinker.embedded.paths import data_dir
    from llmchatlinker.topology import GENERATE

    serves = {"llm": [GENERATE], "rest": [name for name in QUEUE_NAMES if name != GENERATE]}
    return [
        Worker(path.stem.removeprefix("worker-"), serves.get(path.stem.removeprefix("worker-"), []))
        for path in sorted((data_dir() / "run").glob("worker-*.alive"))
        if health.is_alive(path)
    ]
