"""What Celery's documentation promises of results, on our backend, without a worker: docs/celery.md.

The questions are those of Celery's own tests of results and backends (``t/unit/tasks/test_result.py``,
``t/unit/backends/test_base.py``).
"""

from __future__ import annotations

import copy
import pickle
import threading
import time
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import pytest
from celery import states
from celery.app.task import Context
from celery.exceptions import ImproperlyConfigured, IncompleteStream, TaskRevokedError
from celery.result import GroupResult, ResultSet, denied_join_result, result_from_tuple

from llmchatlinker.celery_app import app
from llmchatlinker.errors import NotFound, ResultTimeout
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.results.backend import _take
from llmchatlinker.results.reading import Meta
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.results.wakeups import wakeups
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import at_once, eventually

pytestmark = pytest.mark.usefixtures("cycle")


def pending() -> InstructionResult:
    """A task that is no instruction, and that nobody has run."""
    result: InstructionResult = app.AsyncResult(str(uuid4()))
    return result


def done(value: Any = 1) -> InstructionResult:
    """One that has returned the value."""
    result = pending()
    app.backend.mark_as_done(result.id, value)
    return result


def failed(error: Exception) -> InstructionResult:
    """One that has raised."""
    result = pending()
    app.backend.mark_as_failure(result.id, error)
    return result


def instruction(cycle: Cycle, username: str) -> InstructionResult:
    """An instruction that is final."""
    instruction_id = cycle.submit("USER_CREATE", username=username)
    cycle.finish(instruction_id)
    return InstructionResult(str(instruction_id))


# --- one result ---------------------------------------------------------------------------------


def test_a_result_is_its_id_wherever_it_goes(cycle: Cycle) -> None:
    for result in (USER_LIST.delay(), app.AsyncResult(str(uuid4()), parent=pending())):
        others = [
            copy.copy(result),
            pickle.loads(pickle.dumps(result)),
            result_from_tuple(result.as_tuple(), app),
            app.AsyncResult(result.id),
        ]
        assert others == [result] * 4
        assert all(isinstance(other, InstructionResult) for other in others)
        assert all(other.backend is app.backend for other in others)
        assert {hash(other) for other in others} == {hash(result)}
        assert str(result) == result.id
        assert result.id in repr(result)
        assert others[2].parent == result.parent


def test_an_instructions_result_has_no_parents_and_no_children(cycle: Cycle) -> None:
    result = instruction(cycle, "ada")

    assert (result.parent, result.children, result.ignored) == (None, [], False)
    assert [found.id for found, _ in result.collect()] == [result.id]
    assert result.get_leaf()["status"] == "success"
    assert len(result.graph) == 1


def test_to_collect_what_is_not_ready_is_an_incomplete_stream(cycle: Cycle) -> None:
    result = USER_LIST.delay()

    with pytest.raises(IncompleteStream):
        list(result.iterdeps())
    assert [node for _, node in result.iterdeps(intermediate=True)] == [result]


def test_exists_tells_what_is_pending_from_what_never_was(cycle: Cycle) -> None:
    assert USER_LIST.delay().exists()
    assert not app.AsyncResult(str(new_instruction_id())).exists()
    assert done().exists()
    assert failed(ValueError()).exists()
    assert not pending().exists()


@pytest.mark.parametrize("state", [states.STARTED, states.RETRY, states.RECEIVED, "PROGRESS"])
def test_a_state_that_is_not_ready_is_seen_and_not_waited_for(state: str) -> None:
    result = pending()
    info: Any = ValueError("again") if state == states.RETRY else {"done": 5}
    app.backend.store_result(result.id, info, state)

    assert (result.state, result.ready(), result.date_done) == (state, False, None)
    assert repr(result.info) == repr(info)
    with pytest.raises(ResultTimeout):
        result.get(timeout=0.05)
    app.backend.mark_as_done(result.id, "done")
    assert (result.get(timeout=60), result.state) == ("done", states.SUCCESS)
    assert isinstance(result.date_done, datetime)


def test_a_first_success_stays_and_a_failure_does_not() -> None:
    result = failed(ValueError("first"))
    app.backend.mark_as_done(result.id, 1)
    app.backend.mark_as_failure(result.id, ValueError("last"))

    assert result.get(timeout=60) == 1


def test_an_error_is_raised_or_returned_as_asked_for() -> None:
    result = failed(KeyError("missing"))

    with pytest.raises(KeyError, match="missing"):
        result.get(timeout=60)
    assert isinstance(result.get(timeout=5, propagate=False), KeyError)
    assert isinstance(app.AsyncResult(result.id).result, KeyError)
    assert (result.failed(), result.successful(), result.ready()) == (True, False, True)


def test_a_revoked_task_raises_what_celery_raises() -> None:
    result = pending()
    app.backend.mark_as_revoked(result.id, "no longer wanted")

    with pytest.raises(TaskRevokedError, match="no longer wanted"):
        result.get(timeout=60)
    assert (result.state, result.failed()) == (states.REVOKED, False)


def test_a_parents_error_is_raised_as_well() -> None:
    child = app.AsyncResult(str(uuid4()), parent=failed(KeyError("parent")))

    with pytest.raises(KeyError, match="parent"):
        child.get(timeout=60)
    with pytest.raises(ResultTimeout):
        child.get(timeout=0.05, follow_parents=False)


def test_results_are_not_waited_for_inside_of_tasks(cycle: Cycle) -> None:
    results = [instruction(cycle, "ada"), done()]

    with denied_join_result():
        for result in (*results, ResultSet(results, app=app)):
            with pytest.raises(RuntimeError, match="within a task"):
                result.get(timeout=1)
            assert result.get(timeout=1, disable_sync_subtasks=False)


def test_an_ignored_result_is_not_waited_for() -> None:
    result = pending()
    result.ignored = True

    assert result.get(timeout=30) is None


def test_who_waits_can_do_something_meanwhile_and_waits_no_longer_than_asked() -> None:
    result = pending()
    began = time.monotonic()

    def meanwhile() -> None:
        app.backend.mark_as_done(result.id, "done")

    assert result.get(timeout=60, interval=0.1, on_interval=meanwhile) == "done"
    with pytest.raises(ResultTimeout):
        pending().get(timeout=0.3)

    assert time.monotonic() - began < 60
    assert not wakeups()._waiting


def test_an_interval_that_is_longer_than_the_timeout_is_not_waited_for() -> None:
    arrived: SimpleQueue[tuple[str, Meta]] = SimpleQueue()
    began = time.monotonic()

    assert _take(arrived, began, pause=60.0) is None
    assert _take(arrived, began + 0.1, pause=60.0) is None
    assert _take(arrived, None, pause=0.01) is None

    assert time.monotonic() - began < 30


def test_a_callback_gets_id_and_value_of_each_result(cycle: Cycle) -> None:
    results = [done(number) for number in range(3)]
    group = ResultSet(list(results), app=app)
    seen: dict[str, Any] = {}

    assert group.join_native(timeout=5, callback=seen.__setitem__) is None
    assert group.join(timeout=5, callback=lambda *_: None) == []
    assert seen == {result.id: number for number, result in enumerate(results)}
    results[0].get(callback=lambda *found: seen.update([found]))
    assert seen[results[0].id] == 0


def test_a_callback_per_message_is_for_many_and_not_for_one() -> None:
    result = done(7)
    seen: list[Any] = []

    with pytest.raises(ImproperlyConfigured):
        pending().get(timeout=1, on_message=seen.append)
    for timeout in (0, 5):
        ResultSet([result], app=app).join_native(timeout=timeout, on_message=seen.append)
    assert [meta["result"] for meta in seen] == [7, 7]


def test_what_is_promised_for_later_comes_with_get() -> None:
    result, seen = done(5), []
    result.then(lambda found: seen.append(found.result))

    assert seen == []
    result.get(timeout=60)
    assert seen == [5]


def test_details_of_a_task_are_kept_where_celery_is_told_to(monkeypatch: Any) -> None:
    monkeypatch.setitem(app.conf, "result_extended", True)
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    request = Context(
        task="add", args=[1, moment], kwargs={"c": 3}, hostname="here", retries=2,
        group="a group", parent_id="a parent", delivery_info={"routing_key": "database"},
    )  # fmt: skip
    result = pending()
    app.backend.store_result(result.id, 3, states.SUCCESS, request=request)

    assert (result.name, result.args, result.kwargs) == ("add", [1, moment], {"c": 3})
    assert (result.worker, result.retries, result.queue) == ("here", 2, "database")
    meta = app.backend.get_task_meta(result.id)
    assert (meta["group_id"], meta["parent_id"]) == ("a group", "a parent")


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonsense", ["a\x00b", "\ud800"])
def test_an_id_that_nobody_can_have_keeps_nobody_waiting(nonsense: str) -> None:
    result = pending()

    def refused() -> str:
        with pytest.raises(NotFound):
            app.AsyncResult(nonsense).get(timeout=30)
        app.backend.mark_as_done(result.id, "done")
        return "done"

    assert at_once([refused, lambda: result.get(timeout=30)]) == ["done", "done"]


def test_one_id_in_two_spellings_is_one_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")
    spellings = [str(instruction_id), str(instruction_id).upper(), instruction_id.hex]

    def finish() -> str:
        eventually(lambda: len(wakeups()._waiting) == 3)
        cycle.finish(instruction_id)
        return "success"

    waits = [
        lambda text=text: app.AsyncResult(text).get(timeout=30)["status"] for text in spellings
    ]
    assert at_once([finish, *waits]) == ["success"] * 4


def test_a_number_is_an_id_too() -> None:
    app.backend.mark_as_done("15", "fifteen")

    assert app.AsyncResult(15).get(timeout=60) == "fifteen"  # type: ignore[arg-type]


# --- many ---------------------------------------------------------------------------------------


def test_a_set_says_how_far_its_members_are(cycle: Cycle) -> None:
    members = [instruction(cycle, "ada"), done(2), failed(KeyError("x")), pending()]
    results = ResultSet(list(members), app=app)

    assert (len(results), results[1], list(results)) == (4, members[1], members)
    assert (results.completed_count(), results.ready(), results.waiting()) == (2, False, True)
    assert (results.successful(), results.failed()) == (False, True)
    with pytest.raises(KeyError):
        results.maybe_throw()
    results.discard(members[3])
    assert (results.ready(), results.waiting()) == (True, False)
    with pytest.raises(KeyError):
        results.remove(members[3])


@pytest.mark.parametrize("how", ["get", "join", "join_native"])
def test_results_are_joined_in_order_and_the_first_error_is_raised(how: str) -> None:
    good = ResultSet([done(number) for number in range(5)], app=app)
    bad = ResultSet([done(1), failed(KeyError("x"))], app=app)

    assert getattr(good, how)(timeout=60) == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError):
        getattr(bad, how)(timeout=60)
    values = getattr(bad, how)(timeout=5, propagate=False)
    assert (values[0], type(values[1])) == (1, KeyError)
    assert getattr(ResultSet([], app=app), how)(timeout=60) == []


@pytest.mark.parametrize("how", ["get", "join", "join_native"])
@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_set_is_not_waited_for_longer_than_asked(how: str, timeout: float) -> None:
    results = ResultSet([done(), pending(), pending()], app=app)
    began = time.monotonic()

    with pytest.raises(ResultTimeout):
        getattr(results, how)(timeout=timeout, interval=30)

    assert time.monotonic() - began < 10
    assert not wakeups()._waiting


def test_a_budget_that_is_spent_is_no_endless_wait() -> None:
    results = ResultSet([done(), pending()], app=app)

    def slow(*_: Any) -> None:
        threading.Event().wait(0.2)

    with pytest.raises(ResultTimeout):
        results.join(timeout=0.1, callback=slow)


def test_one_look_at_many_gives_what_is_there(cycle: Cycle) -> None:
    there, late = done(), USER_LIST.delay()

    found = dict(app.backend.get_many([there.id, late.id], max_iterations=1))

    assert set(found) == {there.id}


def test_a_set_that_grows_is_waited_for_as_a_whole() -> None:
    results = ResultSet([], app=app)
    results.add(done(1))
    assert results.get(timeout=60) == [1]
    results.add(done(2))
    results.add(results[0])

    assert results.get(timeout=60) == [1, 2]


def test_who_stops_half_way_waits_for_nothing_any_longer(cycle: Cycle) -> None:
    results = [done(1), pending(), USER_LIST.delay()]
    found = ResultSet(results, app=app).iter_native()

    assert next(found)[0] == results[0].id
    assert len(wakeups()._waiting) == 2
    found.close()
    assert not wakeups()._waiting


def test_forgetting_a_set_or_a_child_forgets_all_of_it(cycle: Cycle) -> None:
    parent = done()
    child = app.AsyncResult(str(uuid4()), parent=parent)
    app.backend.mark_as_done(child.id, 2)
    members = [instruction(cycle, "ada"), done()]

    child.forget()
    ResultSet(list(members), app=app).forget()

    assert not any(result.exists() for result in (parent, child, *members))
    with pytest.raises(NotFound):
        members[0].get(timeout=60)


# --- groups -------------------------------------------------------------------------------------


def test_a_group_comes_back_with_parent_and_nested_groups() -> None:
    inner = app.GroupResult(str(uuid4()), [done(1), done(2)])
    group = app.GroupResult(str(uuid4()), [inner, done(3)], parent=done())
    group.save()
    app.backend._cache.clear()

    restored = app.GroupResult.restore(group.id)

    assert restored == group
    assert restored.parent == group.parent
    assert restored.children == group.results
    assert restored.join(timeout=60) == [[1, 2], 3]


def test_a_group_that_is_saved_again_is_the_new_one() -> None:
    group_id = str(uuid4())
    for members in ([done(1)], [done(2), done(3)], []):
        GroupResult(group_id, members, app=app).save()
        app.backend._cache.clear()
        assert GroupResult.restore(group_id, app=app).results == members


def test_a_group_that_was_never_saved_or_is_deleted_is_none() -> None:
    group = app.GroupResult(str(uuid4()), [done()])
    assert app.GroupResult.restore(group.id) is None
    group.save()
    assert app.GroupResult.restore(group.id) == group

    group.delete()

    assert app.GroupResult.restore(group.id) is None
    assert group.results[0].exists()


def test_a_group_can_be_pickled_and_returned() -> None:
    group = app.GroupResult(str(uuid4()), [done(1), done(2)])
    holder = pending()
    app.backend.mark_as_done(holder.id, group)

    assert pickle.loads(pickle.dumps(group)).results == group.results
    assert result_from_tuple(holder.get(timeout=60), app) == group


def test_children_are_kept_and_collected() -> None:
    leaves = [done(number) for number in range(3)]
    request = Context()
    request.children.append(app.GroupResult(str(uuid4()), leaves))
    root = pending()
    app.backend.mark_as_done(root.id, "root", request=request)

    collected = dict(app.AsyncResult(root.id).collect(timeout=60))

    assert [collected[leaf] for leaf in leaves] == [0, 1, 2]
    assert collected[root] == "root"
    assert app.AsyncResult(root.id).get_leaf() == 2


# --- how long -----------------------------------------------------------------------------------


def test_results_of_other_tasks_expire_and_instructions_do_not(cycle: Cycle) -> None:
    old, young, kept = done(), done(), instruction(cycle, "ada")
    cycle.sql(
        "UPDATE task_results SET date_done = now() - interval '2 days' WHERE task_id = :id",
        id=old.id,
    )
    cycle.sql("UPDATE instructions SET final_at = now() - interval '2 days'")

    app.tasks["celery.backend_cleanup"]()

    assert (old.exists(), young.exists(), kept.exists()) == (False, True, True)
