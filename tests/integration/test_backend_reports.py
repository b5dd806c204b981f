"""The result backend as Celery itself uses it: failures, and tasks that are no instructions."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from celery import states
from celery.utils.objects import Bunch
from kombu.exceptions import OperationalError

from llmchatlinker.celery_app import app
from llmchatlinker.errors import ResultTimeout
from tests.fixtures.cycles import Cycle, failure

pytestmark = pytest.mark.usefixtures("cycle")


# --- what Celery itself reports -----------------------------------------------------------------


def request_of(instruction_id: Any) -> Bunch:
    """As of any task of the cycle but the last: an id of its own, the instruction's as root."""
    return Bunch(
        root_id=str(instruction_id), chain=None, chord=None, errbacks=None, id=str(uuid4())
    )


def test_a_failed_hand_off_leaves_the_instruction_open(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")

    for error in (OperationalError("broker gone"), ConnectionResetError()):
        app.backend.mark_as_failure(str(uuid4()), error, request=request_of(instruction_id))

    assert cycle.row(instruction_id).state == "decoded"
    assert cycle.count("task_results") == 0


def test_a_failure_of_celerys_own_ends_the_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")

    app.backend.mark_as_failure(
        str(uuid4()), TypeError("a secret"), request=request_of(instruction_id)
    )

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.details) == ("internal", {"exception": "TypeError"})
    assert "secret" not in str(failed)


def test_a_failure_of_celerys_own_does_not_undo_work_that_is_committed(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.execute(instruction_id)

    app.backend.mark_as_failure(
        str(instruction_id), TypeError(), request=request_of(instruction_id)
    )
    app.backend.mark_as_revoked(str(instruction_id), request=request_of(instruction_id))
    app.backend.store_result(str(instruction_id), ValueError(), states.FAILURE)

    assert cycle.envelope(instruction_id)["status"] == "success"


def test_a_revoked_stage_cancels_the_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")

    app.backend.mark_as_revoked(str(uuid4()), request=request_of(instruction_id))

    assert failure(cycle.envelope(instruction_id)).code == "cancelled"
    assert cycle.decode(instruction_id)
    assert cycle.execute(instruction_id)
    assert cycle.count("users") == 0


def test_a_store_without_an_outcome_does_not_end_anything(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")

    app.backend.store_result(str(instruction_id), "whatever", states.SUCCESS)

    assert cycle.row(instruction_id).state == "decoded"


# --- other tasks on the same app ----------------------------------------------------------------


def test_another_tasks_result_is_kept_as_it_is() -> None:
    task_id = str(uuid4())
    value = {"text": "grüße", "list": [1, 2.5, None, True]}

    app.backend.store_result(task_id, value, states.SUCCESS)

    result = app.AsyncResult(task_id)
    assert (result.state, result.get(timeout=60)) == (states.SUCCESS, value)
    result.forget()
    assert app.AsyncResult(task_id).state == states.PENDING


def test_another_tasks_failure_is_raised_as_it_was() -> None:
    task_id = str(uuid4())

    app.backend.mark_as_failure(task_id, KeyError("missing"), traceback="File …")

    result = app.AsyncResult(task_id)
    assert (result.state, result.traceback) == (states.FAILURE, "File …")
    with pytest.raises(KeyError, match="missing"):
        result.get(timeout=60)


def test_another_tasks_first_success_stays() -> None:
    task_id = str(uuid4())

    app.backend.store_result(task_id, 1, states.SUCCESS)
    app.backend.store_result(task_id, 2, states.SUCCESS)

    assert app.AsyncResult(task_id).get(timeout=60) == 1


def test_another_tasks_result_may_still_come() -> None:
    with pytest.raises(ResultTimeout):
        app.AsyncResult(str(uuid4())).get(timeout=0.1)


def test_the_backends_address_has_no_password(cycle: Cycle) -> None:
    password = cycle.database.engine.url.password

    assert app.backend.as_uri() == cycle.database.address
    assert password is None or str(password) not in app.backend.as_uri()
