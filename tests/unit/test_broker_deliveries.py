"""Deliveries come out of their frames as py-amqp makes them, and acknowledgements go out as its own."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from struct import pack, unpack_from
from typing import Any

import amqp
import pytest
from amqp import method_framing, spec
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.serialization import dumps

from llmchatlinker import broker_deliveries
from llmchatlinker.broker_connection import _Channel
from llmchatlinker.broker_reading import BufferedTransport

Frame = tuple[int, int, bytes]

HEADERS: dict[str, Any] = {
    "task": "llmchatlinker.user.user_list",
    "published": 1.5,
    "again": True,
    "nothing": None,
    "retries": 3,
    "large": 2**40,
    "price": Decimal("1.5"),
    "when": datetime(2026, 1, 2, 3, 4, 5),
    "nested": {"x-death": [{"count": 1, "reason": "expired"}], "ü": "ä"},
    "empty": {},
    "long": "x" * 70_000,
}
EVERY_PROPERTY: dict[str, Any] = {
    "content_type": "application/json",
    "content_encoding": "utf-8",
    "application_headers": HEADERS,
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": "c",
    "reply_to": "r" * 255,
    "expiration": "1000",
    "message_id": "m",
    "timestamp": 1_700_000_000,
    "type": "t",
    "user_id": "guest",
    "app_id": "ä",
    "cluster_id": "",
}


class Broker:
    """A connection of py-amqp's with two channels, not connected; frames go to ``handle``."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.connection = amqp.Connection("localhost")
        self.came: list[Any] = []
        for number in (1, 2):
            channel = amqp.Channel(self.connection, number)
            channel.callbacks["hints"] = self._receive
        self.handle = handler(self.connection, self.connection.on_inbound_method)

    def channel(self, number: int = 1) -> Any:
        return self.connection.channels[number]

    def _receive(self, message: Any) -> None:
        number = message.channel.channel_id
        self.came.append((number, message.body, message.properties, message.delivery_info))


def delivery(
    body: bytes = b"{}",
    properties: dict[str, Any] | None = None,
    channel: int = 1,
    consumer: str = "hints",
    redelivered: bool = False,
    pieces: int = 1,
) -> list[Frame]:
    """The frames of one."""
    names = (consumer, 2**40, redelivered, "exchange", "llmchatlinker.ü")
    deliver = pack(">HH", *spec.Basic.Deliver) + dumps("sLbss", names)
    header = amqp.Message(**(properties or {}))._serialize_properties()
    frames = [(1, channel, deliver), (2, channel, pack(">HxxQ", 60, len(body)) + header)]
    length = -(-len(body) // pieces)
    return frames + [
        (3, channel, body[start : start + length]) for start in range(0, len(body), length or 1)
    ]


def both(frames: Sequence[Frame]) -> tuple[Broker, Broker]:
    """Give them to ours and to py-amqp's; each says the same about which of them completes one."""
    ours, theirs = Broker(broker_deliveries.frame_handler), Broker(method_framing.frame_handler)
    for frame in frames:
        assert ours.handle(frame) == theirs.handle(frame)
    return ours, theirs


@pytest.mark.parametrize(
    "properties",
    [{}, EVERY_PROPERTY]
    + [{name: value} for name, value in EVERY_PROPERTY.items()]
    + [{"application_headers": {name: value}} for name, value in HEADERS.items()],
    ids=str,
)
@pytest.mark.parametrize("redelivered", [False, True])
def test_a_delivery_is_what_py_amqp_makes_of_it(
    properties: dict[str, Any], redelivered: bool
) -> None:
    ours, theirs = both(delivery(properties=properties, redelivered=redelivered))

    assert len(ours.came) == 1
    assert ours.came == theirs.came
    assert ours.connection.bytes_recv == theirs.connection.bytes_recv == 3


@pytest.mark.parametrize("body", [b"", b"x", "ü".encode(), b"\xff", b"abc" * 1000])
@pytest.mark.parametrize("encoding", [None, "utf-8", "latin-1", "binary", "no\0such"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_so_is_its_body_however_it_comes(body: bytes, encoding: str | None, pieces: int) -> None:
    properties = {} if encoding is None else {"content_encoding": encoding}

    ours, theirs = both(delivery(body, properties, pieces=pieces))

    assert len(ours.came) == 1
    assert ours.came == theirs.came


@pytest.mark.parametrize("name", [b"key", b"\xff\xfe"])
@pytest.mark.parametrize("text", [b"text", b"\xff\xfe"])
def test_what_is_no_utf_8_is_left_to_py_amqp(name: bytes, text: bytes) -> None:
    table = pack(">B", len(name)) + name + b"S" + pack(">I", len(text)) + text
    header = pack(">HxxQHI", 60, 0, 0x2000, len(table)) + table

    ours, theirs = both([delivery()[0], (2, 1, header)])

    assert len(ours.came) == 1
    assert ours.came == theirs.came


def test_deliveries_of_two_channels_and_other_methods_come_in_between() -> None:
    one, two = delivery(b"one"), delivery(b"two", channel=2)
    ack = (1, 1, pack(">HHQB", *spec.Basic.Ack, 7, 0))
    heartbeat = (8, 0, b"")

    ours, theirs = both([one[0], two[0], two[1], heartbeat, one[1], one[2], ack, two[2]])

    assert [(number, body) for number, body, *_ in ours.came] == [(1, b"one"), (2, b"two")]
    assert ours.came == theirs.came


def test_what_is_no_delivery_and_has_a_body_is_py_amqps() -> None:
    ours, theirs = both(delivery())
    returned = pack(">HH", *spec.Basic.Return) + dumps("Bsss", (312, "NO_ROUTE", "", "nowhere"))
    for broker in (ours, theirs):
        back: list[Any] = []
        broker.channel().events["basic_return"].add(lambda *told, back=back: back.append(told[-1]))
        for frame in [(1, 1, returned), *delivery(b"back")[1:]]:
            broker.handle(frame)

        assert [message.body for message in back] == [b"back"]
        assert len(broker.came) == 1


def test_who_waits_for_a_frame_inside_of_a_delivery_gets_the_next_one() -> None:
    broker = Broker(broker_deliveries.frame_handler)
    bodies: list[bytes] = []

    def receive(message: Any) -> None:
        bodies.append(message.body)
        if message.body == b"one":
            for frame in delivery(b"two"):
                broker.handle(frame)

    broker.channel().callbacks["hints"] = receive
    for frame in delivery(b"one"):
        broker.handle(frame)

    assert bodies == [b"one", b"two"]


def test_a_channel_that_is_closing_gets_nothing() -> None:
    broker = Broker(broker_deliveries.frame_handler)
    broker.channel().is_closing = True

    for frame in delivery():
        broker.handle(frame)

    assert broker.came == []


def test_a_connection_that_was_closed_meanwhile_gets_nothing() -> None:
    broker = Broker(broker_deliveries.frame_handler)
    *begun, last = delivery()
    for frame in begun:
        broker.handle(frame)
    broker.connection.channels = None

    with pytest.raises(RecoverableConnectionError):
        broker.handle(last)


@pytest.mark.parametrize("properties", [{}, EVERY_PROPERTY], ids=["bare", "full"])
@pytest.mark.parametrize("kinds", [(1, 1), (1, 3), (1, 2, 2), (1, 2, 1)])
def test_frames_in_the_wrong_order_are_refused(
    kinds: tuple[int, ...], properties: dict[str, Any]
) -> None:
    frames = {kind: (kind, 1, payload) for kind, _, payload in delivery(properties=properties)}
    broker = Broker(broker_deliveries.frame_handler)
    *before, last = kinds
    for kind in before:
        broker.handle(frames[kind])

    with pytest.raises(UnexpectedFrame):
        broker.handle(frames[last])
    assert broker.came == []


# --- acknowledging ------------------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[tuple[Any, socket.socket]]:
    """A channel of ours, and where what it sends arrives."""
    there, here = socket.socketpair()
    connection = amqp.Connection("localhost")
    transport = BufferedTransport("localhost:1")
    transport.sock, transport._write = here, here.sendall
    connection._transport = transport
    connection._frame_writer = method_framing.frame_writer(connection, transport)
    yield _Channel(connection, 1), there
    there.close()
    here.close()


@pytest.mark.parametrize("tag", [1, 2**40])
@pytest.mark.parametrize("multiple", [False, True])
def test_an_acknowledgement_is_py_amqps(
    wire: tuple[Any, socket.socket], tag: int, multiple: bool
) -> None:
    channel, there = wire
    channel.basic_ack(tag, multiple=multiple)
    ours = there.recv(1000)

    amqp.Channel.basic_ack(channel, tag, multiple=multiple)

    assert ours == there.recv(1000)


def test_acknowledgements_of_many_threads_come_whole(wire: tuple[Any, socket.socket]) -> None:
    channel, there = wire
    length = 21
    came = b""

    def acknowledge(number: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(100):
                channel.basic_ack(number)

        return run

    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(acknowledge(number)) for number in range(1, 9)]
        while len(came) < 800 * length:
            came += there.recv(65_536)
        for future in done:
            future.result()

    tags = Counter(unpack_from(">Q", came, at + 11)[0] for at in range(0, len(came), length))
    assert tags == dict.fromkeys(range(1, 9), 100)


def test_on_a_closed_channel_nothing_is_acknowledged(wire: tuple[Any, socket.socket]) -> None:
    channel, _ = wire
    channel.connection = None

    with pytest.raises(RecoverableConnectionError):
        channel.basic_ack(1)
