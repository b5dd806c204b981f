"""The embedded broker: kombu's own SQLAlchemy transport on the embedded PostgreSQL.

It marks a message as delivered before the work is done and has no fanout: here the sweeper is the
only redelivery, and remote control, events and Flower need RabbitMQ
(``kombu/transport/sqlalchemy/__init__.py``).
"""

from __future__ import annotations

from typing import Any

from kombu import Connection
from kombu.transport.sqlalchemy import Transport

from llmchatlinker.settings import Settings
from llmchatlinker.topology import task_queues

#: Seconds between two looks at idle queues.
POLLING_INTERVAL = 0.05


def transport_options(settings: Settings) -> dict[str, Any]:
    """Options for ``broker_transport_options``; all of them go to SQLAlchemy's create_engine."""
    # A transport option of this name would go to create_engine too, and fail there.
    Transport.polling_interval = POLLING_INTERVAL
    return {
        "pool_size": settings.broker_pool_size,
        "max_overflow": settings.broker_pool_size,
        "pool_pre_ping": True,
        "hide_parameters": True,
    }


def broker_url(database_url: str) -> str:
    """The broker URL that sends messages through this database."""
    return "sqla+" + database_url


def prepare(settings: Settings) -> None:
    """Create the transport's tables and queues, so that workers don't race for it at their start."""
    with Connection(
        settings.broker_url, transport_options=transport_options(settings)
    ) as connection:
        for queue in task_queues():
            queue.bind(connection.default_channel).declare()
