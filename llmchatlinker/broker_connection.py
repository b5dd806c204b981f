"""Connections to RabbitMQ on which nothing is inflated, and that are read in large pieces.

kombu inflates a body that says to be compressed when it makes the message, before anybody can look at
its size (``kombu/message.py``): a hundred kilobytes become a hundred megabytes. No message of ours is
compressed. So one that says so can't be decoded, its body stays as it came, and whoever consumes deals
with it as with any other that makes no sense. It holds for this app alone: other Celery apps of the
process have connections of their own.
"""

from __future__ import annotations

import json
from typing import Any

import kombu
from celery.app import amqp
from kombu.connection import ConnectionPool, PooledConnection
from kombu.exceptions import DecodeError
from kombu.transport import pyamqp

from llmchatlinker.broker_deliveries import Acknowledging, frame_handler
from llmchatlinker.broker_publishing import Publishing
from llmchatlinker.broker_reading import BufferedTransport, drain

JSON = "application/json"
#: Where kombu has the transport of the embedded system.
EMBEDDED = "kombu.transport.sqlalchemy"
#: The key of an object that stands for a date, say (``kombu/utils/json.py``).
KOMBUS_OWN = "__type__"


def _refusal() -> Any:
    return DecodeError, DecodeError("it is compressed"), None


class Message(pyamqp.Message):
    """A message that came."""

    def __init__(self, msg: Any, channel: Any = None, **options: Any) -> None:
        if (msg.properties.get("application_headers") or {}).get("compression"):
            self.errors = [_refusal()]
        super().__init__(msg, channel=channel, **options)  # type: ignore[no-untyped-call]

    def _decode(self) -> Any:
        """kombu's asks of every object whether it stands for a value of its own; few bodies have one."""
        body = self.body
        if (
            self.content_type == JSON
            and (self.accept is None or JSON in self.accept)
            and isinstance(body, str)  # py-amqp has decoded what says to be UTF-8
            and KOMBUS_OWN not in body
        ):
            try:
                return json.loads(body)
            except ValueError:
                pass  # which kombu says in its own way
        return super()._decode()  # type: ignore[no-untyped-call]  # kombu has no types


class _Channel(Publishing, Acknowledging, pyamqp.Channel):
    Message = Message


class _Connection(pyamqp.Connection):
    Channel = _Channel

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **(options | {"frame_handler": frame_handler}))


class _PlainConnection(_Connection):
    def Transport(
        self,
        host: str,
        connect_timeout: float | None,
        ssl: object = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        socket_settings: dict[str, Any] | None = None,
        **_: object,
    ) -> BufferedTransport:
        """The socket. py-amqp's own asks whether it is to be TLS; here it is not."""
        return BufferedTransport(
            host, connect_timeout, read_timeout, write_timeout, socket_settings
        )


class _Transport(pyamqp.Transport):
    Connection = _PlainConnection

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """From now on a loop looks at the socket."""
        connection.transport.polled = True
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]  # as above
        if connection.transport.holds_frame():  # which the loop can't see
            loop.call_soon(drain, connection)

    def on_readable(self, connection: Any, loop: Any) -> None:
        """There is something to read."""
        drain(connection)


class _SSLTransport(pyamqp.SSLTransport):
    Connection = _Connection


_OURS = {pyamqp.Transport: _Transport, pyamqp.SSLTransport: _SSLTransport}


class _Careful(kombu.Connection):
    """kombu's; its address stays as it is, with amqp:// or amqps://."""

    def get_transport_cls(self) -> Any:
        """Ours for RabbitMQ and for the embedded system, and kombu's for whatever else there may be."""
        found: Any = super().get_transport_cls()  # type: ignore[no-untyped-call]
        if found.__module__ == EMBEDDED:
            from llmchatlinker.embedded.broker import Transport  # which no client of RabbitMQ needs

            return Transport
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
