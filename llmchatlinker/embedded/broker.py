"""The embedded broker: kombu's own SQLAlchemy transport on the embedded PostgreSQL.

It marks a message as delivered before the work is done and has no fanout: here the sweeper is the
only redelivery, and remote control, events and Flower need RabbitMQ
(``kombu/transport/sqlalchemy/__init__.py``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu.transport import sqlalchemy as kombus
from kombu.transport import virtual
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from llmchatlinker.broker_connection import Connection
from llmchatlinker.db.sessions import is_outage
from llmchatlinker.settings import Settings
from llmchatlinker.topology import task_queues

logger = logging.getLogger(__name__)


class _QoS(virtual.QoS):
    def restore_unacked(self) -> list[Any]:
        """What can't be put back is the sweeper's; kombu would write it into a file in /tmp."""
        lost = super().restore_unacked()  # type: ignore[no-untyped-call]  # kombu has no types
        if lost:
            logger.warning("%d messages can't be put back: left to the sweeper", len(lost))
        return []


class _Channel(kombus.Channel):
    """A session for each thing that is done.

    kombu's keeps one for good. Where a statement fails it stays in the transaction that failed, and all
    that comes after fails as well, with an error that nobody takes for an outage; and after a look at a
    queue its connection is held (``kombu/transport/sqlalchemy/__init__.py``).
    """

    QoS = _QoS

    @contextmanager
    def _session_of_its_own(self) -> Iterator[None]:
        try:
            yield
        except virtual.base.Empty:  # no failure
            self.session.close()
            raise
        except BaseException as error:
            if self._session is not None:
                self._session.invalidate()  # its connection may be broken, too
            if isinstance(error, DBAPIError) and error.orig and is_outage(error):
                # In one class: a disk that is read-only has the class of a missing right.
                raise OperationalError(error.statement, error.params, error.orig) from error
            raise
        self.session.close()

    def _new_queue(self, queue: str, **options: Any) -> None:
        with self._session_of_its_own():
            super()._new_queue(queue, **options)  # type: ignore[no-untyped-call]  # as above

    # kombu itself has two names for what is put.
    def _put(self, queue: str, payload: Any, **options: Any) -> None:  # type: ignore[override]
        with self._session_of_its_own():
            super()._put(queue, payload, **options)  # type: ignore[no-untyped-call]  # as above

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        with self._session_of_its_own():
            return super()._get(queue)  # type: ignore[no-untyped-call]  # as above

    def _purge(self, queue: str) -> Any:
        with self._session_of_its_own():
            return super()._purge(queue)  # type: ignore[no-untyped-call]  # as above

    def _size(self, queue: str) -> Any:
        with self._session_of_its_own():
            return super()._size(queue)  # type: ignore[no-untyped-call]  # as above


class Transport(kombus.Transport):
    """kombu's, for what ``broker_url`` makes."""

    Channel = _Channel
    #: Seconds between two looks at idle queues. As an option it would go to create_engine, too.
    polling_interval = 0.05
    #: An outage, and a pool that is used up. mypy takes kombu's one class for all that there may be.
    connection_errors = (OperationalError, PoolTimeout)  # type: ignore[assignment]


def transport_options(settings: Settings) -> dict[str, Any]:
    """Options for ``broker_transport_options``; all of them go to SQLAlchemy's create_engine."""
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
    options = transport_options(settings)
    made: Any = Connection  # kombu has no types
    with made(settings.broker_url, transport_options=options) as connection:
        for queue in task_queues():
            queue.bind(connection.default_channel).declare()
