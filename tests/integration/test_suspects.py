"""Stages that are delivered again: counted, run alone, and ended when they are poison."""

from __future__ import annotations

import threading
from uuid import UUID

import pytest
from celery.app.task import Context

from llmchatlinker import leases, suspects
from llmchatlinker.stage_messages import AGAIN
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene

TASK = "llmchatlinker.user.user_create"


def deliver(
    cycle: Cycle,
    instruction_id: UUID,
    *,
    redelivered: bool = True,
    brief: bool = True,
    **headers: object,
) -> bool:
    """Deliver ``execute`` as a worker's task does."""
    info = {"redelivered": redelivered, "routing_key": "user"}
    request = Context(delivery_info=info, task=TASK, **headers)
    return suspects.run(
        instruction_id, "decoded", lambda: cycle.execute(instruction_id), request, brief=brief
    )


def begun(cycle: Cycle, instruction_id: UUID, starts: int, seconds: float = 60.0) -> None:
    """It was begun so often, the last time so long ago."""
    cycle.sql(
        "UPDATE instructions SET starts = :starts, starts_of = state,"
        " started_at = clock_timestamp() - make_interval(secs => :seconds) WHERE id = :id",
        id=instruction_id,
        starts=starts,
        seconds=seconds,
    )


def test_a_first_delivery_is_not_counted(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")

    assert deliver(cycle, instruction_id, redelivered=False)

    assert cycle.row(instruction_id).starts == 0
    assert cycle.count("users") == 1


def test_a_second_start_is_counted_and_does_its_work(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")

    assert deliver(cycle, instruction_id)

    assert (cycle.row(instruction_id).starts, cycle.row(instruction_id).starts_of) == (2, "decoded")
    assert cycle.count("users") == 1


def test_a_stage_that_is_done_is_not_counted(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.execute(instruction_id)

    assert deliver(cycle, instruction_id), "the chain goes on from what is there"

    assert cycle.row(instruction_id).starts == 0


def test_each_stage_has_a_count_of_its_own(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.sql("UPDATE instructions SET starts = 3, starts_of = 'submitted'")

    assert deliver(cycle, instruction_id)

    assert cycle.row(instruction_id).starts == 2


def test_poison_ends_without_being_begun(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 3)

    assert not deliver(cycle, instruction_id)

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.stage, failed.details) == ("poisoned", "execute", {"starts": 3})
    assert cycle.count("users") == 0
    rows = cycle.sql("SELECT queue, reason, task, became, instruction_id FROM dead_letters")
    assert [tuple(row) for row in rows] == [("user", "poisoned", TASK, "closed", instruction_id)]


def test_how_often_is_a_setting(cycle: Cycle, configure: Configure) -> None:
    configure(starts=5)
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 4)

    assert deliver(cycle, instruction_id)

    assert cycle.row(instruction_id).starts == 5


def test_what_is_published_again_is_counted_as_what_is_delivered_again(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")

    assert deliver(cycle, instruction_id, redelivered=False, **{AGAIN: True})

    assert cycle.row(instruction_id).starts == 2


def test_a_start_of_the_moment_is_waited_for_and_then_it_is_poison(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suspects, "YOUNG", 0.5)
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 3, seconds=0.0)

    assert not deliver(cycle, instruction_id)

    assert failure(cycle.envelope(instruction_id)).details == {"starts": 3}
    assert cycle.count("users") == 0


def test_copies_that_came_in_one_outage_are_no_poison(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 3, seconds=0.0)
    other = threading.Timer(0.5, cycle.execute, (instruction_id,))
    other.start()

    assert deliver(cycle, instruction_id), "the chain goes on from what the other has done"

    other.join()
    assert cycle.row(instruction_id).state == "executed"
    assert cycle.count("users") == 1


def test_who_is_at_it_for_long_and_gives_signs_of_life_is_no_poison(
    cycle: Cycle, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(lease=3.0)
    monkeypatch.setattr(leases, "_keeper", None)  # the process's has the settings of its first call
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 3, seconds=1.5)

    with leases.held(instruction_id):
        assert deliver(cycle, instruction_id, brief=False)

    assert cycle.row(instruction_id).state == "executed"


def test_of_two_last_starts_at_once_one_is_made(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    begun(cycle, instruction_id, 2)
    values = {"id": str(instruction_id), "state": "decoded", "limit": 3}

    counted = [suspects._count(values), suspects._count(values)]

    assert counted == [True, False]
    assert cycle.row(instruction_id).starts == 3


def test_what_is_parked_is_counted_anew(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    begun(scene.cycle, second, 2)

    scene.cycle.execute(second)

    assert scene.cycle.row(second).state == "waiting"
    assert scene.cycle.row(second).starts == 0
    scene.cycle.execute(first)


@pytest.mark.parametrize("lease", ["1 minute", "-1 second"])
def test_a_call_that_the_ledger_knows_is_not_counted(scene: Scene, lease: str) -> None:
    instruction_id = scene.decoded("Hello")
    scene.cycle.sql(
        "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)"
        " VALUES (:id, 1, 'scripted', 'echo', 'another', now() + CAST(:lease AS interval))",
        id=instruction_id,
        lease=lease,
    )
    begun(scene.cycle, instruction_id, 3)
    request = Context(delivery_info={"redelivered": True}, task="generate")

    # What becomes of it is the ledger's to say.
    assert suspects.run(instruction_id, "decoded", lambda: True, request, brief=False)

    assert scene.cycle.row(instruction_id).starts == 3


def test_a_generation_that_was_never_called_for_is_counted_and_made(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")

    assert deliver(scene.cycle, instruction_id, brief=False)

    assert scene.cycle.row(instruction_id).starts == 2
    assert scene.said() == ["Hello", "You said: Hello"]


def test_the_poison_of_a_turn_lets_the_next_one_go_on(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)
    begun(scene.cycle, first, 3)

    assert not deliver(scene.cycle, first, brief=False)

    assert scene.cycle.deliver("llm.generate") == [second]
