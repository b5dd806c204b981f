"""Connections to RabbitMQ on which nothing is inflated.

kombu inflates a body that says to be compressed when it makes the message, before anybody can look at
its size (``kombu/message.py``): a hundred kilobytes become a hundred megabytes. No message of ours is
compressed. So one that says so can't be decoded, its body stays as it came, and whoever consumes deals
with it as with any other that makes no sense. It holds for this app alone: other Celery apps of the
process have connections of their own.
"""

from __future__ import annotations

from typing import Any

import kombu
from celery.app import amqp
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import DecodeError
from kombu.transport import pyamqp


def _refusal() -> Any:
    return DecodeError, DecodeError("it is compressed"), None


class Message(pyamqp.Message):
    """A message that came."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        if (msg.properties.get("application_headers") or {}).get("compression"):
            self.errors = [_refusal()]
        super().__init__(msg, channel=channel, **options)  # type: ignore[no-untyped-call]


class _Channel(pyamqp.Channel):
    Message = Message


class _Connection(pyamqp.Connection):
    Channel = _Channel


class _Transport(pyamqp.Transport):
    Connection = _Connection


class _SSLTransport(pyamqp.SSLTransport):
    Connection = _Connection


_OURS = {pyamqp.Transport: _Transport, pyamqp.SSLTransport: _SSLTransport}


class _Careful(kombu.Connection):
    """kombu's; its address stays as it is, with amqp:// or amqps://."""

    def get_transport_cls(self) -> Any:
        """Ours for RabbitMQ; the embedded system's own, where nobody else sends, is kombu's."""
        found: Any = super().get_transport_cls()  # type: ignore[no-untyped-call]
        return _OURS.get(found, found)


class _Pooled(_Careful, PooledConnection):
    pass


class _Pool(ConnectionPool):
    """Makes its connections by itself (``kombu/connection.py``)."""

    def new(self) -> _Pooled:
        told = dict(self.connection._info(resolve=False))
        return _Pooled(self, **told)  # type: ignore[no-untyped-call]


class Connection(_Careful):
    """What Celery makes."""

    def Pool(self, limit: int | None = None, **options: Any) -> _Pool:
        """A pool of such connections."""
        return _Pool(self, limit, **options)  # type: ignore[no-untyped-call]


class AMQP(amqp.AMQP):
    """What Celery makes its connections with."""

    Connection = BrokerConnection = Connection
