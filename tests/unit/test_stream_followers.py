"""A follower: in order, without a gap, whatever is lost, late, doubled or out of order on its way."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.providers.base import Delta
from llmchatlinker.streaming.events import Event, as_json, delta_event, ending
from llmchatlinker.streaming.follower import ROOM, Follower, ResponseEvent
from llmchatlinker.streaming.reading import Found

LAST = {"type": "response.completed"}


def follower(after: int = 0, *, snapshot: bool = False) -> Follower:
    return Follower("0", lambda: None, after=after, snapshot=snapshot)


def text_events(*texts: str) -> list[Event]:
    return [delta_event(Delta("text", text)) for text in texts]


def stored(one: Follower, events: list[Event], *, size: int = 4) -> Found:
    """What a look into PostgreSQL finds for it."""
    rows = [
        (first + 1, first + len(run), run)
        for first in range(0, len(events), size)
        if first + len(run := events[first : first + size]) >= one.next
    ]
    return Found(one.next, True, True, False, rows)


def taken(one: Follower) -> list[ResponseEvent]:
    return list(iter(one.take, None))


@given(st.lists(st.text(max_size=3), max_size=30), st.integers(0, 2**32), st.integers(0, 30))
def test_events_come_once_and_in_order(texts: list[str], seed: int, after: int) -> None:
    chance = random.Random(seed)
    events = [*text_events(*texts), LAST]
    one = follower(after=min(after, len(events)))
    got: list[ResponseEvent] = []
    written = 0
    while not one.is_over and one.next <= len(events):
        written = min(len(events), written + chance.randrange(4))
        first = chance.randrange(written + 1)
        run = events[first:written][: chance.randrange(1, 5)]
        missing = bool(run) and one.pushed(first + 1, first + len(run), run, copy=False)
        if missing or chance.random() < 0.2:
            one.found(stored(one, events[:written]))
        got += taken(one)

    assert [event.sequence_number for event in got] == list(
        range(min(after, len(events)) + 1, len(events) + 1)
    )
    assert "".join(event.text for event in got) == "".join(texts[after:])


@given(st.lists(st.text(max_size=3), max_size=20), st.integers(0, 20))
def test_a_snapshot_and_what_follows_are_the_whole(texts: list[str], so_far: int) -> None:
    events = [*text_events(*texts), LAST]
    one = follower(snapshot=True)
    one.found(stored(one, events[:so_far]))
    one.found(stored(one, events))
    got = taken(one)

    assert "".join(event.text for event in got) == "".join(texts)
    assert got[-1].sequence_number == len(events)
    assert [event.type for event in got].count("response.snapshot") == (min(so_far, len(texts)) > 0)


def test_a_gap_asks_for_a_look() -> None:
    one = follower()

    assert one.pushed(2, 2, text_events("b"), copy=False)
    assert one.take() is None


def test_a_push_without_its_events_asks_for_a_look() -> None:
    assert follower().pushed(1, 900, None, copy=False)


def test_who_is_too_slow_is_behind_and_reads_later() -> None:
    one = follower()
    texts = [str(number) for number in range(3 * ROOM)]
    for number, event in enumerate(text_events(*texts), 1):
        assert not one.pushed(number, number, [event], copy=False)
    assert not one.catch_up()

    assert len(taken(one)) == ROOM
    assert one.catch_up()
    assert not one.catch_up()
    assert one.next == ROOM + 1


def test_what_is_shared_is_copied() -> None:
    shared: list[Event] = [{"type": "response.usage", "usage": {"total_tokens": 1}}]
    one, other = follower(), follower()
    for each in (one, other):
        each.pushed(1, 1, shared, copy=True)

    taken(one)[0].data["usage"]["total_tokens"] = 2

    assert taken(other)[0].data["usage"]["total_tokens"] == 1


def test_compacted_events_are_a_snapshot() -> None:
    one = follower(after=3)
    found = Found(4, True, True, True, [(10, 10, [LAST])], message={"text": "all", "message_id": 2})

    one.found(found)
    snapshot, last = taken(one)

    assert (snapshot.type, snapshot.sequence_number, snapshot.text) == (
        "response.snapshot",
        9,
        "all",
    )
    assert (last.type, last.sequence_number) == ("response.completed", 10)


def test_an_ending_that_nobody_stored_is_made_of_the_outcome() -> None:
    outcome = {"status": "error", "message": "Late.", "data": {}, "error": {"code": "cancelled"}}
    one, late = follower(), follower(after=5)
    one.found(Found(1, True, True, True, [(1, 2, text_events("a", "b"))], outcome, 2))
    late.found(Found(6, True, True, True, [], outcome, 2))

    assert [event.type for event in taken(one)][-1] == "response.cancelled"
    assert taken(late) == []
    assert late.is_over


def test_a_repr_shows_no_text() -> None:
    one = follower()
    one.pushed(1, 1, text_events("secret"), copy=False)

    assert "secret" not in repr(taken(one)[0])


def test_the_last_event_tells_how_it_ended() -> None:
    def kind(status: str | None, code: str | None = None) -> str:
        response = {} if status is None else {"llm_response": {"status": status, "message_id": 1}}
        envelope = {"message": "", "data": response}
        return ending(envelope | ({"error": {"code": code}} if code else {}))["type"]

    assert kind("complete") == "response.completed"
    assert kind("cancelled") == kind(None, "cancelled") == "response.cancelled"
    assert kind("cancelled", "cancelled") == "response.cancelled"
    assert kind("in_doubt") == kind(None, "provider_error") == "response.failed"


@given(st.text(st.characters(), max_size=20))
def test_any_text_is_json_that_postgresql_can_keep(text: str) -> None:
    kept = as_json([delta_event(Delta("text", text))])

    assert "\\u0000" not in kept.replace("\\\\", "")
    kept.encode()
