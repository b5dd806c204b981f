"""What is read from RabbitMQ's socket, what is left in it for an event loop to see, and bodies."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from struct import pack
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.utils import json

from llmchatlinker.broker_connection import Message
from llmchatlinker.broker_reading import BufferedTransport, drain


def frame(payload: bytes, channel: int = 1, end: int = 0xCE) -> bytes:
    return pack(f">BHI{len(payload)}sB", 3, channel, len(payload), payload, end)


ONE, TWO, THREE = frame(b"one"), frame(b""), frame(b"x" * 200_000)


class Wire:
    """Both ends of a connection: what the broker sends, and the transport that reads it."""

    def __init__(self) -> None:
        self.broker, ours = socket.socketpair()
        self.transport = BufferedTransport("localhost:1")
        self.transport.sock = ours
        self.transport.connected = True
        self.frames: list[bytes] = []
        self.connection: Any = SimpleNamespace(
            connected=True,
            transport=self.transport,
            on_inbound_frame=lambda found: self.frames.append(found[2]),
        )

    def is_readable(self) -> bool:
        return bool(select.select([self.transport.sock], [], [], 0)[0])

    def close(self) -> None:
        self.broker.close()
        if self.transport.sock is not None:
            self.transport.sock.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    made.transport.sock.settimeout(5)
    yield made
    made.close()


def test_a_frame_is_read_however_it_is_cut(wire: Wire) -> None:
    for cut in range(1, len(ONE)):
        wire.broker.sendall(ONE[:cut])
        with wire.transport.having_timeout(0), pytest.raises(TimeoutError):
            wire.transport.read_frame()
        wire.broker.sendall(ONE[cut:] + TWO)

        assert wire.transport.read_frame() == (3, 1, b"one")
        assert wire.transport.read_frame() == (3, 1, b"")


def test_a_large_frame_is_read_whole(wire: Wire) -> None:
    wire.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_000_000)
    wire.broker.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)
    wire.broker.sendall(THREE + ONE)

    assert wire.transport.read_frame() == (3, 1, b"x" * 200_000)
    assert wire.transport.read_frame() == (3, 1, b"one")


def test_one_read_takes_all_there_is_where_no_loop_looks_at_the_socket(wire: Wire) -> None:
    wire.broker.sendall(ONE + TWO)

    wire.transport.read_frame()

    assert wire.transport.holds_frame()
    assert not wire.is_readable()


def test_who_waits_on_a_socket_that_a_loop_looks_at_takes_his_frame_alone(wire: Wire) -> None:
    wire.transport.polled = True
    wire.broker.sendall(ONE + TWO)

    wire.transport.read_frame()

    assert not wire.transport.holds_frame()
    assert wire.is_readable()  # or the loop would not hear of the second one


def test_the_loop_is_given_everything_that_has_come_and_leaves_a_part_for_later(wire: Wire) -> None:
    wire.transport.polled = True
    wire.broker.sendall(ONE + TWO + ONE[:5])
    drain(wire.connection)
    assert wire.frames == [b"one", b""]

    drain(wire.connection)
    assert wire.frames == [b"one", b""]

    wire.broker.sendall(ONE[5:])
    drain(wire.connection)
    assert wire.frames == [b"one", b"", b"one"]


def test_who_waits_for_a_frame_while_another_is_dealt_with_gets_the_next_one(wire: Wire) -> None:
    def wait(found: Any) -> None:
        wire.frames.append(found[2])
        if found[2] == b"one":
            wire.frames.append(wire.transport.read_frame()[2])

    wire.connection.on_inbound_frame = wait
    wire.broker.sendall(ONE + frame(b"two") + frame(b"three"))

    drain(wire.connection)

    assert wire.frames == [b"one", b"two", b"three"]


def test_nothing_is_dealt_with_behind_a_frame_that_closed_the_connection(wire: Wire) -> None:
    def close(found: Any) -> None:
        wire.frames.append(found[2])
        wire.connection.connected = False

    wire.connection.on_inbound_frame = close
    wire.broker.sendall(ONE + TWO)

    drain(wire.connection)

    assert wire.frames == [b"one"]
    with pytest.raises(RecoverableConnectionError):
        drain(wire.connection)


def test_a_connection_that_the_broker_closes_is_known_to_be_closed(wire: Wire) -> None:
    wire.broker.sendall(ONE[:4])
    wire.broker.close()

    with pytest.raises(OSError, match="unexpectedly closed"):
        wire.transport.read_frame()

    assert not wire.transport.connected


def test_bytes_that_are_no_frame_are_refused(wire: Wire) -> None:
    wire.broker.sendall(frame(b"one", end=0xCD))

    with pytest.raises(UnexpectedFrame):
        wire.transport.read_frame()


def test_a_read_that_the_kernel_gives_up_is_one_that_took_too_long(wire: Wire) -> None:
    """SO_RCVTIMEO, which the settings of a connection ask for."""
    wire.transport.sock.settimeout(None)
    wire.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, pack("ll", 0, 10_000))

    with pytest.raises(TimeoutError):
        wire.transport.read_frame()

    assert wire.transport.connected


# --- bodies -------------------------------------------------------------------------------------


def message(body: Any, content_type: str = "application/json") -> Message:
    properties = {"content_type": content_type, "content_encoding": "utf-8"}
    came = SimpleNamespace(body=body, properties=properties, delivery_tag=1, delivery_info={})
    made = Message(came)
    made.accept = {"application/json"}
    return made


@pytest.mark.parametrize(
    "value",
    [
        [["an id"], {}, {"chain": None}],
        {"nested": [{"a": 1.5}, None, True, "ä"]},
        {"when": datetime(2026, 1, 2, tzinfo=UTC), "ids": [UUID(int=7)], "sum": Decimal("1.10")},
        "__type__",
    ],
)
def test_a_body_is_opened_as_kombu_opens_it(value: Any) -> None:
    text = json.dumps(value)

    assert message(text).payload == value
    assert message(text.encode()).payload == value


def test_a_body_that_is_no_json_is_refused_as_kombu_refuses_it() -> None:
    with pytest.raises(DecodeError):
        message("[1").decode()


def test_a_body_of_another_kind_is_not_opened() -> None:
    with pytest.raises(ContentDisallowed):
        message("[1]", "application/x-yaml").decode()
