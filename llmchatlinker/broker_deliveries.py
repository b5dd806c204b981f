"""Deliveries, read from their frames in one go, and their acknowledgements, written as bytes.

py-amqp makes a delivery of three frames with a function call for each property, each header and each
argument (``amqp/method_framing.py``, ``amqp/serialization.py``, ``amqp/abstract_channel.py``); it took a
worker's main loop as long as starting the task. What comes out is the same. Everything else that comes
or goes is py-amqp's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from struct import pack, unpack_from
from typing import Any

from amqp import Message, method_framing, spec
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.serialization import _read_item

from llmchatlinker.broker_reading import BODY, END, HEADER, METHOD, BufferedTransport

_DELIVER = pack(">HH", *spec.Basic.Deliver)
_LONG_STRING = ord("S")

#: The properties of the class ``basic`` by the bits of the flags, in the order in which they come
#: (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.6.1 and 1.8.1): strings, but for the
#: headers, octets and a time.
_HEADERS, _OCTETS, _TIME = "application_headers", ("delivery_mode", "priority"), "timestamp"
_PROPERTIES = [(0x8000 >> place, name) for place, (name, _) in enumerate(Message.PROPERTIES)]


def frame_handler(connection: Any, callback: Callable[..., None]) -> Callable[[Any], bool]:
    """What a connection calls with each frame; whether something is complete with it.

    As py-amqp's of the same name. ``callback``: what a method that is not a delivery goes to.
    """
    every_other = method_framing.frame_handler(connection, callback)
    # By the channel's number: the message, and the type of the frame with which it goes on.
    coming: dict[int, tuple[Any, int]] = {}

    def on_frame(frame: tuple[int, int, bytes]) -> bool:
        kind, number, payload = frame
        begun = coming.get(number)
        if begun is None:
            if kind != METHOD or payload[:4] != _DELIVER:
                done: bool = every_other(frame)
                return done
            message = Message(frame_method=spec.Basic.Deliver, frame_args=payload)
            coming[number] = message, HEADER
            connection.bytes_recv += 1
            return False
        connection.bytes_recv += 1
        message, expected = begun
        if kind != expected:
            raise UnexpectedFrame(f"Received frame {kind} while expecting type: {expected}")
        if kind == HEADER:
            read_header(message, payload)
            coming[number] = message, BODY
        else:
            message.inbound_body(payload)
        if message.ready:
            del coming[number]
            _deliver(connection, number, message, callback)
        return bool(message.ready)

    return on_frame


def read_header(message: Any, payload: bytes) -> None:
    """As ``GenericContent.inbound_header``: size of the body, and properties."""
    try:
        found = _properties(payload)
    except UnicodeDecodeError:  # of which py-amqp makes what it can
        message.inbound_header(payload)
        return
    message.properties = found
    (message.body_size,) = unpack_from(">Q", payload, 4)
    message.ready = not message.body_size


def _properties(payload: bytes) -> dict[str, Any]:
    (flags,) = unpack_from(">H", payload, 12)
    at = 14
    found: dict[str, Any] = {}
    for bit, name in _PROPERTIES:
        if not flags & bit:
            continue
        if name == _HEADERS:
            found[name], at = _table(payload, at)
        elif name in _OCTETS:
            found[name] = payload[at]
            at += 1
        elif name == _TIME:
            (found[name],) = unpack_from(">Q", payload, at)
            at += 8
        else:
            end = at + 1 + payload[at]
            found[name] = payload[at + 1 : end].decode()
            at = end
    return found


def _table(payload: bytes, at: int) -> tuple[dict[str, Any], int]:
    (size,) = unpack_from(">I", payload, at)
    at += 4
    end = at + size
    found: dict[str, Any] = {}
    while at < end:
        start = at + 1
        at = start + payload[at]
        key = payload[start:at].decode()
        if payload[at] == _LONG_STRING:
            (size,) = unpack_from(">I", payload, at + 1)
            start = at + 5
            at = start + size
            found[key] = payload[start:at].decode()
        else:
            found[key], at = _read_item(payload, at)
    return found, at


def _deliver(connection: Any, number: int, message: Any, callback: Callable[..., None]) -> None:
    channels = connection.channels
    if channels is None:
        raise RecoverableConnectionError("Connection already closed")
    channel = channels[number]
    arguments = message.frame_args
    if channel.is_closing:  # which py-amqp says in its log
        callback(number, spec.Basic.Deliver, arguments, message)
        return
    if channel.auto_decode and "content_encoding" in message.properties:
        with suppress(Exception):  # as ``dispatch_method`` has it: whoever gets it finds bytes
            message.body = message.body.decode(message.properties["content_encoding"])
    at = 5 + arguments[4]
    tag, again = unpack_from(">QB", arguments, at)
    consumer, exchange, routing_key = _names(arguments[5:at], arguments[at + 9 :])
    channel._on_basic_deliver(consumer, tag, bool(again & 1), exchange, routing_key, message)


@lru_cache(maxsize=1024)
def _names(consumer: bytes, where: bytes) -> tuple[str, str, str]:
    end = 1 + where[0]
    return consumer.decode(), where[1:end].decode(), where[end + 1 : end + 1 + where[end]].decode()


class Acknowledging:
    """A channel of py-amqp's that acknowledges in one write; from any thread."""

    channel_id: int
    connection: Any

    def basic_ack(self, delivery_tag: int, multiple: bool = False, argsig: str = "Lb") -> Any:
        """See py-amqp's."""
        connection = self.connection
        transport = None if connection is None else connection.transport
        if not isinstance(transport, BufferedTransport):
            # TLS, where only py-amqp's own way keeps writes apart, or closed, which it raises. mypy does
            # not see that this is mixed into its channel.
            return super().basic_ack(delivery_tag, multiple, argsig)  # type: ignore[misc]
        method = *spec.Basic.Ack, delivery_tag, multiple
        transport.write(pack(">BHIHHQ?B", METHOD, self.channel_id, 13, *method, END))
        return None
