"""The writer and the watcher: what is stored of a stream, and when it has to stop."""

from __future__ import annotations

import pytest

from llmchatlinker.providers.base import Delta
from llmchatlinker.settings import Settings
from llmchatlinker.streaming import store, writer
from llmchatlinker.streaming.events import delta_event
from llmchatlinker.streaming.pushing import pushes
from llmchatlinker.streaming.tail import Tail
from tests.fixtures.streams import Produce
from tests.fixtures.threads import eventually, holds
from tests.servers.proxy import Proxy


def test_deltas_are_stored_in_order_without_gap_or_duplicate(produce: Produce) -> None:
    response = produce()
    words = [f"{number} " for number in range(1_000)]

    response.say(*words)
    response.finish("".join(words))

    events = response.events()
    assert [event["text"] for event in events[1:-1]] == words
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"


def test_a_delta_is_stored_while_the_stream_goes_on(produce: Produce) -> None:
    response = produce()

    response.say("Hello")
    eventually(lambda: response.texts() == "Hello")
    response.say(" there")
    eventually(lambda: response.texts() == "Hello there")

    shown = response.cycle.sql("SELECT first_delta_at IS NOT NULL FROM attempts")
    assert shown == [(True,)]


@pytest.mark.parametrize("followed", [True, False])
def test_where_nobody_says_who_follows_the_first_delta_is_stored_at_once(
    produce: Produce, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    monkeypatch.setattr(Settings, "broker_is_embedded", property(lambda self: followed))
    monkeypatch.setattr(writer, "INTERVAL", 3_600.0)
    response = produce()
    eventually(lambda: pushes().queues(response.instruction_id) == ())

    response.say("Hello")

    assert holds(lambda: response.texts() == "Hello", 30.0 if followed else 0.5) is followed


def test_what_postgresql_can_not_keep_is_replaced(produce: Produce) -> None:
    response = produce()

    response.say("a\x00b", "\ud83d", "c")
    response.finish()

    assert response.texts() == "a\ufffdb\ufffdc"


def test_an_event_that_is_no_json_spoils_no_other_stream(produce: Produce) -> None:
    bad, good = produce(), produce()

    bad.stream.event("response.usage", {"usage": object()})
    good.say("Hello")

    eventually(lambda: good.texts() == "Hello")


# --- locks, outages, repetitions ----------------------------------------------------------------


def test_a_locked_instruction_holds_up_no_other_stream(produce: Produce) -> None:
    locked, other = produce(), produce()
    with locked.cycle.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "SELECT FROM instructions WHERE id = %(id)s FOR UPDATE", {"id": locked.id}
        )
        locked.say("later")
        other.say("at once")
        eventually(lambda: other.texts() == "at once")
        assert locked.texts() == ""

    eventually(lambda: locked.texts() == "later")


def test_an_outage_of_postgresql_loses_nothing(produce: Produce, db: Proxy) -> None:
    response = produce()
    response.say("before ")
    eventually(lambda: response.texts() == "before ")

    db.cut()
    words = [f"{number} " for number in range(1_200)]
    response.say(*words)
    db.mend()

    eventually(lambda: response.texts() == "before " + "".join(words))
    assert max(len(run) for _, _, run in response.rows()) <= store.ROW_EVENTS


def test_a_tail_that_is_stored_already_is_not_stored_twice(produce: Produce) -> None:
    response = produce()
    response.say("one ", "two ")
    eventually(lambda: response.texts() == "one two ")
    events = response.events()[1:]
    tail = Tail(2, [*events, delta_event(Delta("text", "three"))], True, cuts=(2,))

    for _ in range(2):
        first, run = response.cycle.database.run(
            lambda session: store.append_tail(
                session, response.instruction_id, response.attempt_id, tail, [{"type": "x"}]
            )
        )

    assert (first, len(run)) == (2, 4)
    assert response.texts() == "one two three"
    assert response.events()[-1] == {"type": "x"}


def test_a_drained_stream_takes_nothing_more(produce: Produce) -> None:
    response = produce()
    response.say("Hello")

    tail = response.stream.drain()
    response.say(" there")

    assert tail.first + len(tail.events) == 3
    assert response.stream.drain() == tail


def test_a_tail_says_whether_a_delta_is_stored(produce: Produce) -> None:
    silent, heard = produce(), produce()
    heard.say("Hello")
    eventually(lambda: heard.texts() == "Hello")

    assert not silent.stream.drain().stored_deltas
    assert heard.stream.drain().stored_deltas


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE attempts SET status = 'in_doubt' WHERE instruction_id = :id",
        "UPDATE instructions SET outcome = '{}' WHERE id = :id",
        "UPDATE instructions SET state = 'final', final_at = now(), outcome = '{}' WHERE id = :id",
        "DELETE FROM instructions WHERE id = :id",
    ],
)
def test_nothing_is_stored_of_a_stream_that_is_no_longer_ours(produce: Produce, end: str) -> None:
    response, other = produce(), produce()
    response.cycle.sql(end, id=response.instruction_id)

    response.say("too late")
    other.say("in time")

    eventually(lambda: other.texts() == "in time")
    eventually(lambda: response.stopped)
    assert response.texts() == ""


def test_events_of_a_deleted_stream_do_not_come_back(produce: Produce) -> None:
    response = produce()
    response.say("secret")
    eventually(lambda: response.texts() == "secret")
    response.cycle.sql("DELETE FROM events")

    response.say(" more")
    eventually(lambda: not response.stream._pending)
    assert response.rows() == []

    tail = response.stream.drain()
    tail = Tail(3, [delta_event(Delta("text", " more"))], True) if not tail.events else tail

    response.cycle.database.run(
        lambda session: store.append_tail(
            session, response.instruction_id, response.attempt_id, tail, []
        )
    )

    assert response.rows() == []


# --- what is put together -----------------------------------------------------------------------


def test_a_partial_answer_is_put_together_from_what_is_stored(produce: Produce) -> None:
    response = produce()
    for delta in (
        Delta("reasoning", "Let me "),
        Delta("reasoning", "see."),
        Delta("text", "It is"),
        Delta("tool_call", "", 0, "call_1", "search"),
        Delta("tool_call", '{"q":', 0),
        Delta("tool_call", "{}", 1, "call_2", "stop"),
        Delta("tool_call", "1}", 0),
    ):
        response.stream.delta(delta)
    eventually(lambda: len(response.events()) == 8)

    found = response.cycle.database.run(
        lambda session: store.partial(session, response.instruction_id, response.attempt_id)
    )

    assert (found.content, found.reasoning, found.last) == ("It is", "Let me see.", 8)
    assert found.tool_calls == [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "search", "arguments": '{"q":1}'},
        },
        {"id": "call_2", "type": "function", "function": {"name": "stop", "arguments": "{}"}},
    ]


# --- the watcher --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE instructions SET cancel_requested = 'interrupted' WHERE id = :id", "interrupted"),
        ("UPDATE instructions SET outcome = '{}' WHERE id = :id", "ended"),
        ("DELETE FROM instructions WHERE id = :id", "ended"),
        ("UPDATE attempts SET status = 'in_doubt' WHERE instruction_id = :id", "lost"),
    ],
)
def test_a_stream_is_told_once_that_it_must_stop(
    produce: Produce, change: str, reason: str
) -> None:
    response, other = produce(), produce()

    response.cycle.sql(change, id=response.instruction_id)

    eventually(lambda: response.stopped)
    assert other.stopped == []
    other.cycle.sql(
        "UPDATE instructions SET cancel_requested = 'cancelled' WHERE id = :id",
        id=other.instruction_id,
    )
    eventually(lambda: other.stopped)  # so the watcher has looked again
    assert (response.stopped, other.stopped) == ([reason], ["cancelled"])
