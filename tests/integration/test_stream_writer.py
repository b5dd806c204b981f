"""The writer and the watcher: what is stored of a stream, and when it has to stop."""

from __future__ import annotations

import pytest

from llmchatlinker.providers.base import Delta
from llmchatlinker.streaming import store
from tests.fixtures.streams import Produce
from tests.fixtures.threads import eventually


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
