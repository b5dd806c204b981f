"""Celery tasks that are no instructions, on the same app, run by a real worker: docs/celery.md.

The questions are those of Celery's own tests with a worker (``t/integration/test_tasks.py``,
``t/integration/test_canvas.py``), as far as they are about results.
"""

from __future__ import annotations

import datetime
import decimal
import time
import uuid
from typing import Any

import pytest
from amqp.exceptions import NotFound as AMQPNotFound
from celery import chain, group, states
from celery.exceptions import Reject, TaskRevokedError
from celery.result import ResultSet
from kombu import Connection
from kombu.exceptions import EncodeError

from llmchatlinker.celery_app import app
from llmchatlinker.embedded.processes import ManagedProcess
from tests.fixtures.brokers import Broker
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import eventually, holds
from tests.fixtures.workers import StartWorker
from tests.servers import ordinary_tasks as tasks

PATIENCE = 60.0


@pytest.fixture
def ordinary(cycle: Cycle, worker: StartWorker) -> ManagedProcess:
    """A worker that knows them, and instructions as well."""
    return worker(include=tasks.MODULE)


def get(result: Any, **options: Any) -> Any:
    return result.get(timeout=PATIENCE, **options)


def has_delays(broker: Broker) -> bool:
    """Whether Celery's queues for delays are there."""
    with Connection(broker.url) as connection:
        try:
            connection.default_channel.queue_declare("celery_delayed_1", passive=True)
        except AMQPNotFound:
            return False
    return True


# --- values and errors --------------------------------------------------------------------------


def test_values_come_back_as_what_they_were(ordinary: ManagedProcess) -> None:
    results = [tasks.add.delay(2, 2), tasks.same.delay(None), tasks.same.delay({"größe": [1.5]})]

    assert [get(result) for result in results] == [4, None, {"größe": [1.5]}]
    assert [result.state for result in results] == [states.SUCCESS] * 3
    assert all(result.successful() and result.date_done for result in results)
    assert get(tasks.rich.delay()) == [
        datetime.datetime(2026, 11, 23, 4, 5, 6, tzinfo=datetime.UTC),
        uuid.UUID(int=7),
        decimal.Decimal("1.10"),
        "a\x00b",
        "\ud800",
        "größe 世界",
    ]


def test_an_exception_is_rebuilt_from_its_arguments_where_it_can_be(
    ordinary: ManagedProcess,
) -> None:
    with pytest.raises(tasks.Sour) as caught:
        get(tasks.fail.delay("sour"))
    assert caught.value.degree == 3
    with pytest.raises(Exception, match="Stubborn.*mule"):
        get(tasks.fail.delay("stubborn"))

    odd = tasks.fail.delay("odd")
    assert isinstance(get(odd, propagate=False), ValueError)
    assert (odd.state, odd.failed()) == (states.FAILURE, True)
    assert "ordinary_tasks.py" in odd.traceback
    assert "\x00" not in odd.traceback


def test_what_cannot_be_stored_or_run_is_a_failure_too(ordinary: ManagedProcess) -> None:
    with pytest.raises(EncodeError):
        get(tasks.unspeakable.delay())
    with pytest.raises(Reject):
        get(tasks.reject.delay())
    with pytest.raises(TypeError):
        get(app.send_task(tasks.add.name, args=[1]))
    assert "within a task" in get(tasks.wait_within.delay())
    assert get(tasks.add.delay(1, 1)) == 2  # every slot is free again


def test_an_ignored_result_is_kept_nowhere(cycle: Cycle, ordinary: ManagedProcess) -> None:
    ignored = tasks.add.apply_async((1, 1), ignore_result=True)
    unseen = tasks.fail_unseen.delay()
    assert get(tasks.add.delay(1, 1)) == 2

    assert (ignored.get(timeout=60), unseen.get(timeout=60)) == (None, None)
    assert not holds(lambda: cycle.count("task_results") > 1, 0.5)
    assert (ignored.state, unseen.state) == (states.PENDING, states.PENDING)


def test_a_state_of_its_own_is_seen_while_it_lasts(ordinary: ManagedProcess) -> None:
    result = tasks.report_progress.delay()

    eventually(lambda: result.state == "PROGRESS")
    assert result.info == {"done": 5, "of": 10}
    app.backend.mark_as_done(f"go on {result.id}", True)
    assert get(result) == "done"
    result.forget()
    assert (app.AsyncResult(result.id).state, result.exists()) == (states.PENDING, False)


# --- later --------------------------------------------------------------------------------------


def test_a_task_that_is_tried_again_shows_it_and_ends(ordinary: ManagedProcess) -> None:
    result = tasks.try_again.delay(1, 8)
    eventually(lambda: result.state == states.RETRY)
    assert isinstance(result.info, ValueError)
    assert not result.ready()

    assert get(result) == 1
    assert get(tasks.try_again.delay(2, 0)) == 2
    with pytest.raises(ValueError, match="not yet"):
        get(tasks.try_again.delay(3, 0.1))


def test_a_countdown_is_waited_for_and_only_then_are_there_queues_for_it(
    cycle: Cycle, broker: Broker, ordinary: ManagedProcess
) -> None:
    assert not has_delays(broker)
    began = time.monotonic()
    result = tasks.add.apply_async((1, 1), countdown=2)
    now = datetime.datetime.now(datetime.UTC)
    later = [
        tasks.add.apply_async((2, 2), eta=now + datetime.timedelta(seconds=seconds))
        for seconds in (2, 0.5, -1)
    ]

    assert [get(found) for found in (result, *later)] == [2, 4, 4, 4]
    assert time.monotonic() - began >= 1.5
    assert has_delays(broker)


def test_a_task_that_is_revoked_before_it_starts_never_does(
    cycle: Cycle, worker: StartWorker
) -> None:
    worker("control", include=tasks.MODULE)
    result = tasks.add.delay(1, 1)
    members = group(tasks.add.si(1, number) for number in range(2)).apply_async()

    result.revoke()
    members.revoke()

    for revoked in (result, *members):
        with pytest.raises(TaskRevokedError):
            get(revoked)
        assert (revoked.state, revoked.failed()) == (states.REVOKED, False)


# --- many ---------------------------------------------------------------------------------------


def test_chains_hand_on_and_fail_as_a_whole(ordinary: ManagedProcess) -> None:
    good = chain(tasks.add.s(1, 1), tasks.add.s(2), tasks.add.s(3))()
    assert (get(good), good.parent.get(timeout=60), good.parent.parent.get(timeout=60)) == (7, 4, 2)

    bad = chain(tasks.add.s(1, 1), tasks.fail.si("sour"), tasks.add.si(1, 1))()
    with pytest.raises(tasks.Sour):
        get(bad)
    # Celery hands a task's value on before it keeps its result (``celery/app/trace.py``).
    assert bad.parent.parent.get(timeout=60) == 2
    assert [bad.state, bad.parent.state, bad.parent.parent.state] == [
        states.FAILURE,
        states.FAILURE,
        states.SUCCESS,
    ]


def test_groups_and_children_are_collected(ordinary: ManagedProcess) -> None:
    many = group(tasks.add.s(number, number) for number in range(20)).apply_async()
    many.save()
    assert get(many) == [2 * number for number in range(20)]
    assert get(app.GroupResult.restore(many.id)) == get(many)
    assert many.completed_count() == 20
    mixed = ResultSet([tasks.fail.delay("sour"), tasks.add.delay(1, 1)], app=app)
    assert get(mixed, propagate=False)[1] == 2
    assert [result.failed() for result in mixed] == [True, False]

    tree = tasks.squares.delay(4)
    get(tree)
    (children,) = tree.children
    assert sorted(get(children)) == [0, 1, 4, 9]
    leaves = [value for found, value in tree.collect(timeout=60) if not found.children]
    assert leaves == [0, 1, 4, 9]
    nested = group(tasks.add.s(1, 1), group(tasks.add.s(2, 2), tasks.add.s(3, 3))).apply_async()
    assert get(nested) == [2, 4, 6]


def test_results_come_in_the_order_in_which_they_are_ready(ordinary: ManagedProcess) -> None:
    slow, fast = tasks.report_progress.delay(), tasks.add.delay(1, 1)
    found = ResultSet([slow, fast], app=app).iter_native(timeout=PATIENCE)

    assert next(found)[0] == fast.id
    app.backend.mark_as_done(f"go on {slow.id}", True)
    assert next(found)[0] == slow.id
