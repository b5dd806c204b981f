"""Publishing what is bytes already: three frames in one piece, then the broker's confirm."""

from __future__ import annotations

from functools import lru_cache
from select import POLLIN, POLLOUT, poll
from struct import pack
from typing import Any

from amqp import spec
from amqp.exceptions import MessageNacked, RecoverableConnectionError

from llmchatlinker.broker_reading import BODY, END, HEADER, METHOD

_CONFIRMS = [spec.Basic.Ack, spec.Basic.Nack]


class Publishing:
    """A channel of py-amqp's, with one more way to publish.

    For one thread at a time, as a channel is that was taken from the pool. The ``properties`` are
    AMQP's flags and values, and the message fits into one frame (128 kB). Errors are py-amqp's.
    """

    channel_id: int
    connection: Any
    wait: Any

    def publish_bytes(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        confirm_timeout: float,
    ) -> None:
        """Return once it is confirmed; of a channel that was told to confirm.

        As ``basic_publish_confirm`` of ``amqp/channel.py``. ``confirm_timeout``: seconds. MessageNacked
        is raised where the broker refuses, TimeoutError without a confirm.
        """
        self.write_bytes(exchange, routing_key, properties, body)
        self.wait(_CONFIRMS, callback=_confirmed, timeout=confirm_timeout)

    def write_bytes(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        """Return once the socket has it."""
        connection = self.connection
        if connection is None:
            raise RecoverableConnectionError("the channel is closed")
        number = self.channel_id
        header = pack(">HHQ", spec.Basic.CLASS_ID, 0, len(body)) + properties
        frames = [_method(number, exchange, routing_key), _frame(HEADER, number, header)]
        if body:
            frames.append(_frame(BODY, number, body))
        try:
            connection.transport.write(b"".join(frames))
        except TimeoutError:
            # As py-amqp has it: such a socket is dead.
            raise RecoverableConnectionError("the broker takes nothing") from None

    def takes_at_once(self) -> bool:
        """Whether a message of a few kB is written without waiting, as far as is known.

        On a channel without confirms the broker says nothing but that something is wrong.
        """
        connection = self.connection
        if connection is None:
            return False
        looked = poll()
        looked.register(connection.transport.sock, POLLIN | POLLOUT)
        return [event for _, event in looked.poll(0)] == [POLLOUT]


@lru_cache(maxsize=256)
def _method(channel: int, exchange: str, routing_key: str) -> bytes:
    """The frame of ``basic.publish``, without flags."""
    names = b"".join(
        pack(">B", len(name)) + name for name in (exchange.encode(), routing_key.encode())
    )
    return _frame(METHOD, channel, pack(">HHH", *spec.Basic.Publish, 0) + names + b"\x00")


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + pack(">B", END)


def _confirmed(method: tuple[int, int], *_: Any) -> None:
    if method == spec.Basic.Nack:
        raise MessageNacked
