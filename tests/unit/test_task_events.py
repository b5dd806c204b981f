"""A worker's events of tasks are noted as they happen, and made when they are published."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmchatlinker import task_events
from llmchatlinker.celery_app import app
from llmchatlinker.task_events import Dispatcher


class Noting(Dispatcher):
    """Keeps what is published."""

    def __init__(self, **options: Any) -> None:
        self.published: list[Any] = []
        self.fails = False
        options = {"hostname": "w1@here", "enabled": False, "buffer_group": ["task"]} | options
        super().__init__(app.connection_for_write(), app=app, **options)
        self.enabled = True

    def _publish(self, event: Any, producer: Any, routing_key: str, **_: Any) -> None:
        if self.fails:
            self._outbound_buffer.append((event, routing_key))
        else:
            self.published.append((routing_key, event))


def test_tasks_events_are_collected_in_order_with_the_time_at_which_they_happened() -> None:
    dispatcher = Noting()
    before = time.time()
    dispatcher.send("task-received", uuid="1", name="mine")
    between = time.time()
    dispatcher.send("task-succeeded", uuid="1", runtime=0.1)
    after = time.time()
    assert dispatcher.published == []

    dispatcher.flush()

    [(routing_key, events)] = dispatcher.published
    assert routing_key == "task.multi"
    received, succeeded = events
    assert received["type"] == "task-received" and received["name"] == "mine"
    assert succeeded["type"] == "task-succeeded" and succeeded["runtime"] == 0.1
    assert before <= received["timestamp"] <= between <= succeeded["timestamp"] <= after
    assert received["clock"] < succeeded["clock"]
    assert {event["hostname"] for event in events} == {"w1@here"}


def test_a_moment_that_is_given_is_kept() -> None:
    dispatcher = Noting()

    dispatcher.send("task-received", uuid="1", timestamp=1.5)
    dispatcher.flush()

    assert dispatcher.published[0][1][0]["timestamp"] == 1.5


def test_too_many_are_published_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_events, "MOST", 50)
    dispatcher = Noting()

    for number in range(120):
        dispatcher.send("task-received", uuid=str(number))

    assert [len(events) for _, events in dispatcher.published] == [50, 50]


def test_what_can_not_be_published_is_kept_for_the_next_connection() -> None:
    first, second = Noting(), Noting()
    first.send("task-received", uuid="1")
    first.fails = True
    first.flush()

    second.extend_buffer(first)
    second.flush()

    [(routing_key, events)] = second.published
    assert routing_key == "task.multi"
    assert [event["uuid"] for event in events] == ["1"]


def test_other_events_and_other_workers_events_go_out_at_once() -> None:
    dispatcher = Noting()
    dispatcher.send("worker-heartbeat")
    unbuffered = Noting(buffer_group=None)
    unbuffered.send("task-received", uuid="1")

    assert [key for key, _ in dispatcher.published] == ["worker.heartbeat"]
    assert [key for key, _ in unbuffered.published] == ["task.received"]


def test_groups_that_nobody_wants_and_a_disabled_dispatcher_collect_nothing() -> None:
    unwanted, disabled = Noting(groups=["worker"]), Noting()
    disabled.enabled = False

    for dispatcher in (unwanted, disabled):
        dispatcher.send("task-received", uuid="1")
        dispatcher.flush()

        assert dispatcher.published == []


def test_the_app_makes_such_a_dispatcher() -> None:
    assert issubclass(app.events.Dispatcher, Dispatcher)
