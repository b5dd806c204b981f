"""Server-sent events: the same ones, whatever pieces the network makes of the bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmchatlinker.providers.sse import EventReader, ServerEvent

STREAM = (
    "\ufeffdata: naïve 🦜\r\n\r\n: keep-alive\r\n\r\nevent: delta\rdata: one\rdata:two\r\r"
    "data: [DONE]\n\nid: 7\nretry: 3\ndata\n\ndata: cut"
).encode()
EVENTS = [
    ServerEvent("naïve 🦜"),
    ServerEvent("one\ntwo", "delta"),
    ServerEvent("[DONE]"),
    ServerEvent(""),
    ServerEvent("cut", closed=False),
]


def read(*pieces: bytes) -> list[ServerEvent]:
    reader = EventReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return events + reader.end()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(bounds)]


def test_a_stream_is_read_as_the_standard_says() -> None:
    assert read(STREAM) == EVENTS


def test_a_byte_at_a_time_is_the_same_stream() -> None:
    assert read(*[STREAM[i : i + 1] for i in range(len(STREAM))]) == EVENTS


@given(st.lists(st.integers(0, 10_000), max_size=12))
@example([1])  # in the middle of the byte order mark
@example([20, 20])  # an empty piece between CR and LF
def test_any_pieces_are_the_same_stream(places: list[int]) -> None:
    assert read(*cut(STREAM, places)) == EVENTS


@given(
    data=st.binary(max_size=60) | st.text("\r\n:da t\ufeff🦜", max_size=60).map(str.encode),
    places=st.lists(st.integers(0, 100), max_size=8),
)
@example(data=b"data: x\r\n\r\n", places=[8, 8])
@example(data=b"data: \r\r\n\n", places=[7, 8])
def test_any_bytes_whatever_are_the_same_events_in_any_pieces(
    data: bytes, places: list[int]
) -> None:
    assert read(*cut(data, places)) == read(data)


def test_an_event_is_there_as_soon_as_its_blank_line_is() -> None:
    reader = EventReader()

    assert reader.feed(b"data: x\r\n\r") == [ServerEvent("x")]
    assert reader.feed(b"\ndata: y\n\n") == [ServerEvent("y")]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_every_end_of_line_is_one(end: str) -> None:
    lines = end.join(["event: a", "data: 1", "data: 2", "", "data: 3", "", ""])

    assert read(lines.encode()) == [ServerEvent("1\n2", "a"), ServerEvent("3")]


def test_what_is_no_utf8_is_replaced() -> None:
    assert read(b"data: a\xffb\n\n") == [ServerEvent("a\ufffdb")]


def test_one_space_behind_the_colon_is_not_part_of_the_data() -> None:
    assert read(b"data:  x\n\ndata:y\n\n") == [ServerEvent(" x"), ServerEvent("y")]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    assert read(b"event: ping\n\ndata: x\n\n") == [ServerEvent("x")]
