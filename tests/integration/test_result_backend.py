"""The result backend as Celery's users know it: states, getting, groups, forgetting."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import pytest
from celery import states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet

from llmchatlinker.celery_app import app
from llmchatlinker.errors import NotFound, ResultTimeout
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_CREATE, USER_LIST
from llmchatlinker.results.result import InstructionResult
from tests.fixtures.cycles import Cycle, failure

pytestmark = pytest.mark.usefixtures("cycle")


def finished(cycle: Cycle, username: str) -> str:
    """The id of an instruction that is final."""
    instruction_id = cycle.submit("USER_CREATE", username=username)
    cycle.finish(instruction_id)
    return str(instruction_id)


# --- states -------------------------------------------------------------------------------------


def test_states_follow_the_stages(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    result = app.AsyncResult(str(instruction_id))
    seen = [result.state]
    for stage in (cycle.decode, cycle.execute, cycle.store):
        stage(instruction_id)
        seen.append(result.state)

    assert seen == [states.PENDING, states.STARTED, states.STARTED, states.SUCCESS]


def test_a_result_is_ready_when_it_is_stored_and_not_before(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    result = app.AsyncResult(str(instruction_id))
    cycle.execute(instruction_id)
    assert (result.ready(), result.result) == (False, None)

    cycle.store(instruction_id)

    assert (result.ready(), result.successful(), result.failed()) == (True, True, False)
    assert result.result["data"]["user"]["username"] == "ada"
    assert result.date_done is not None


def test_an_error_is_an_envelope_too_and_get_raises_nothing(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_GET", user_id=77)
    cycle.finish(instruction_id)
    result = app.AsyncResult(str(instruction_id))

    assert result.state == states.SUCCESS
    assert failure(result.get(timeout=1)).code == "not_found"


def test_delay_gives_celerys_result(cycle: Cycle) -> None:
    result = USER_CREATE.delay(username="ada")

    assert isinstance(result, InstructionResult)
    assert isinstance(result, AsyncResult)
    assert result.state == states.PENDING
    assert cycle.row(result.id).data == {"username": "ada"}


@pytest.mark.parametrize("option", ["deadline", "expires"])
def test_apply_async_takes_celerys_word_for_a_deadline(cycle: Cycle, option: str) -> None:
    result = USER_LIST.apply_async(kwargs={"limit": 5}, **{option: 7.5})

    row = cycle.row(result.id)
    assert (row.deadline_at - row.submitted_at).total_seconds() == 7.5


# --- getting ------------------------------------------------------------------------------------


def test_what_is_there_is_got_at_once(cycle: Cycle) -> None:
    result = app.AsyncResult(finished(cycle, "ada"))
    started = time.monotonic()

    assert result.get(timeout=0, interval=300)["status"] == "success"
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("timeout", [0, 0.2])
def test_a_get_times_out_when_it_was_told_to(cycle: Cycle, timeout: float) -> None:
    result = app.AsyncResult(str(cycle.submit("USER_LIST")))
    started = time.monotonic()

    with pytest.raises(ResultTimeout) as caught:
        result.get(timeout=timeout, interval=300)

    assert timeout <= time.monotonic() - started < 60
    assert isinstance(caught.value, CeleryTimeoutError)
    assert result.id in str(caught.value)


def test_an_id_that_was_never_submitted_is_told_apart_from_one_that_waits(cycle: Cycle) -> None:
    result = app.AsyncResult(str(new_instruction_id()))
    started = time.monotonic()

    with pytest.raises(NotFound, match="never submitted"):
        result.get(timeout=300)

    assert time.monotonic() - started < 60
    assert result.state == states.PENDING


def test_a_withdrawn_instruction_is_as_good_as_never_submitted(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")
    cycle.sql("UPDATE instructions SET state = 'withdrawn', final_at = now()")

    with pytest.raises(NotFound):
        app.AsyncResult(str(instruction_id)).get(timeout=30)


def test_a_callback_gets_id_and_envelope(cycle: Cycle) -> None:
    seen: list[tuple[str, Any]] = []
    task_id = finished(cycle, "ada")

    app.AsyncResult(task_id).get(callback=lambda *args: seen.append(args), timeout=60)

    assert [(found, envelope["status"]) for found, envelope in seen] == [(task_id, "success")]


def test_a_waiting_client_can_do_something_meanwhile(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")
    result = app.AsyncResult(str(instruction_id))

    envelope = result.get(
        timeout=20, on_interval=lambda: cycle.finish(instruction_id), interval=0.05
    )

    assert envelope["status"] == "success"


# --- many ---------------------------------------------------------------------------------------


def test_many_results_are_got_together(cycle: Cycle) -> None:
    ids = [finished(cycle, f"user {number}") for number in range(5)]
    results = ResultSet([app.AsyncResult(task_id) for task_id in ids], app=app)

    for get in (results.get, results.join, results.join_native):
        envelopes = get(timeout=60)
        assert [e["data"]["user"]["username"] for e in envelopes] == [
            f"user {number}" for number in range(5)
        ]
    assert results.completed_count() == 5


def test_results_come_as_they_become_ready(cycle: Cycle) -> None:
    slow, fast = cycle.submit("USER_CREATE", username="slow"), cycle.submit("USER_LIST")
    cycle.finish(fast)
    found = app.backend.get_many([str(slow), str(fast)], timeout=60)

    assert next(found)[0] == str(fast)
    cycle.finish(slow)
    assert next(found)[0] == str(slow)
    assert list(found) == []


def test_one_of_many_that_takes_too_long_times_out(cycle: Cycle) -> None:
    ids = [finished(cycle, "ada"), str(cycle.submit("USER_LIST"))]
    seen = []

    with pytest.raises(ResultTimeout):
        for task_id, _ in app.backend.get_many(ids, timeout=0.2):
            seen.append(task_id)

    assert seen == ids[:1]


def test_a_group_is_saved_and_restored(cycle: Cycle) -> None:
    ids = [finished(cycle, name) for name in ("ada", "bob")]
    group = GroupResult(str(uuid4()), [app.AsyncResult(task_id) for task_id in ids], app=app)
    group.save()

    restored = GroupResult.restore(group.id, app=app)

    assert restored is not None
    assert [result.id for result in restored.results] == ids
    assert all(isinstance(result, InstructionResult) for result in restored.results)
    assert [e["data"]["user"]["username"] for e in restored.get(timeout=60)] == ["ada", "bob"]
    restored.delete()
    assert GroupResult.restore(group.id, app=app) is None


# --- forgetting ---------------------------------------------------------------------------------


def test_a_final_result_can_be_forgotten(cycle: Cycle) -> None:
    result = app.AsyncResult(finished(cycle, "ada"))

    result.forget()

    assert cycle.count("instructions") == 0
    with pytest.raises(NotFound):
        app.AsyncResult(result.id).get(timeout=60)


def test_an_instruction_that_is_still_work_cannot_be_forgotten(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")

    app.AsyncResult(str(instruction_id)).forget()

    assert cycle.finish(instruction_id)
    assert cycle.count("users") == 1
