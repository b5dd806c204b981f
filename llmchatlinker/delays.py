"""Delays of tasks that are no instructions: ``countdown``, ``eta``, and the pause before a retry.

On quorum queues Celery sends such a task through queues of its own, in which messages wait
(``celery/worker/consumer/delayed_delivery.py``). Its workers declare them, 28 queues and as many
exchanges, at every start. An instruction that waits is a row, so nothing here needs them until a
user's own task is delayed for the first time: then they are declared, by whoever sends it.
"""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

from celery.utils.time import subtract_datetimes
from kombu.transport.native_delayed_delivery import (
    bind_queue_to_native_delayed_delivery_exchange,
    declare_native_delayed_delivery_exchanges_and_queues,
)

from llmchatlinker.settings import get_settings

#: Seconds. A shorter one makes kombu raise (``calculate_routing_key`` takes no 0).
SHORTEST = 1.0

_declared: set[str] = set()
_lock = threading.Lock()


def countable(app: Any, countdown: Any, eta: Any) -> tuple[Any, Any]:
    """``countdown`` and ``eta`` so that Celery can send them: none of less than a second."""
    if eta is not None:
        left = subtract_datetimes(
            datetime.fromisoformat(eta) if isinstance(eta, str) else eta, app.now()
        )
        if 0 < left.total_seconds() < SHORTEST:
            return SHORTEST, None
    elif countdown and 0 < countdown < SHORTEST:
        return SHORTEST, None
    return countdown, eta


def declare(app: Any) -> None:
    """Make the queues of the broker, once per process; the embedded broker has none."""
    settings = get_settings()
    if settings.broker_is_embedded or settings.broker_url in _declared:
        return
    with _lock:
        if settings.broker_url in _declared:
            return
        with app.connection_for_write() as connection:
            queue_type = app.conf.broker_native_delayed_delivery_queue_type
            declare_native_delayed_delivery_exchanges_and_queues(connection, queue_type)
            for queue in app.amqp.queues.values():
                bind_queue_to_native_delayed_delivery_exchange(connection, queue)
        _declared.add(settings.broker_url)
