"""The sweeper: sends on what is lost, leaves what waits, ends what is late."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker import sweeper
from llmchatlinker.sweeper import LOCK, sweep
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually


@pytest.fixture(autouse=True)
def no_grace(configure: Configure) -> None:
    """What is older than a millisecond may be looked at."""
    configure(sweep_grace=0.001)


def done() -> dict[str, int]:
    """What one sweep did."""
    return dict(+sweep())


def lose(cycle: Cycle, *queues: str) -> None:
    """Let the messages be lost."""
    for queue in queues:
        cycle.broker.take_all(queue)


def at(cycle: Cycle, state: str) -> UUID:
    """An instruction in that state, its message lost."""
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    lose(cycle, "control")
    if state != "submitted":
        cycle.decode(instruction_id)
    if state == "executed":
        cycle.execute(instruction_id)
    return instruction_id


def test_where_nothing_is_lost_nothing_is_done(cycle: Cycle) -> None:
    cycle.do("USER_LIST")

    assert done() == {}


@pytest.mark.parametrize(
    ("state", "queue"), [("submitted", "control"), ("decoded", "user"), ("executed", "database")]
)
def test_a_stage_whose_message_is_lost_is_published_again(
    cycle: Cycle, state: str, queue: str
) -> None:
    instruction_id = at(cycle, state)

    assert done() == {"republished": 1}

    (letter,) = cycle.broker.take_all(queue)
    assert cycle.finish(instruction_id, letter.task)
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_what_merely_waits_is_not_published_again(cycle: Cycle) -> None:
    for number in range(5):
        cycle.submit("USER_CREATE", username=f"user {number}")

    assert done() == {}
    assert cycle.broker.ready("control") == 5


def test_of_what_waits_and_what_is_lost_as_many_as_are_missing_are_published(cycle: Cycle) -> None:
    for number in range(5):
        cycle.submit("USER_CREATE", username=f"user {number}")
    for _ in range(2):
        cycle.broker.take("control")

    assert done() == {}, "with a backlog, what is missing may be at work just now"
    assert done() == {"republished": 2}
    assert cycle.broker.ready("control") == 5
    assert done() == {}


def test_a_backlog_hides_no_message_that_another_queue_has_lost(cycle: Cycle) -> None:
    # Older than what is lost, and more than a sweep looks at.
    cycle.sql(
        "INSERT INTO instructions (id, type, state, data, deadline_at, published_at)"
        " SELECT gen_random_uuid(), 'LLM_RESPONSE_GENERATE', 'decoded', '{}',"
        " now() + interval '1 hour', now() - interval '1 minute' FROM generate_series(1, 600)"
    )
    cycle.broker.declare()
    for _ in range(600):
        cycle.broker.publish(b"", "llm.generate")
    eventually(lambda: cycle.broker.ready("llm.generate") == 600)
    instruction_id = at(cycle, "submitted")

    assert done() == {"republished": 1}

    assert cycle.finish(instruction_id)


def test_what_was_just_published_is_given_time(cycle: Cycle, configure: Configure) -> None:
    configure(sweep_grace=10.0)
    at(cycle, "submitted")

    assert done() == {}


def test_a_turn_that_is_parked_is_not_published(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)
    scene.cycle.publish(first)
    lose(scene.cycle, "control")

    assert done() == {}
    assert scene.cycle.row(second).state == "waiting"


def test_a_call_under_a_live_lease_is_not_published_again(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    lose(scene.cycle, "control")
    scene.cycle.sql(
        "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)"
        " VALUES (:id, 1, 'scripted', 'echo', 'another', now() + interval '1 minute')",
        id=instruction_id,
    )

    assert done() == {}
    scene.cycle.sql("UPDATE attempts SET lease_until = now() - interval '1 second'")
    assert done() == {"republished": 1}


def test_what_is_final_or_withdrawn_is_left_alone(cycle: Cycle) -> None:
    cycle.do("USER_LIST")
    withdrawn = cycle.submit("USER_LIST")
    cycle.sql(
        "UPDATE instructions SET state = 'withdrawn', final_at = now() WHERE id = :id", id=withdrawn
    )
    lose(cycle, "control")

    assert done() == {}


# --- deadlines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["submitted", "decoded"])
def test_what_is_late_ends(cycle: Cycle, state: str) -> None:
    instruction_id = at(cycle, state)
    cycle.sql("UPDATE instructions SET deadline_at = now() - interval '1 second'")

    assert done() == {"expired": 1}

    assert failure(cycle.envelope(instruction_id)).code == "deadline_exceeded"
    assert cycle.row(instruction_id).state == "final"


def test_what_is_late_but_done_ends_with_its_outcome(cycle: Cycle) -> None:
    instruction_id = at(cycle, "executed")
    cycle.sql("UPDATE instructions SET deadline_at = now() - interval '1 second'")

    assert done() == {"expired": 1}

    assert cycle.envelope(instruction_id)["status"] == "success"


def test_the_end_of_a_late_turn_lets_the_next_one_go_on(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)
    lose(scene.cycle, "control")
    scene.cycle.sql(
        "UPDATE instructions SET deadline_at = now() - interval '1 second' WHERE id = :id", id=first
    )

    assert done() == {"expired": 1}

    assert scene.cycle.deliver("llm.generate") == [second]
    assert scene.said() == ["two", "You said: two"]


def test_more_than_a_batch_ends_in_a_sweep(cycle: Cycle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper, "ROUND", 60.0)
    cycle.sql(
        "INSERT INTO instructions (id, type, data, deadline_at)"
        " SELECT gen_random_uuid(), 'USER_LIST', '{}', now() FROM generate_series(1, 1200)"
    )

    assert done() == {"expired": 1200}


def test_a_sweep_has_time_for_its_other_duties(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "ROUND", 0.0)
    cycle.sql(
        "INSERT INTO instructions (id, type, data, deadline_at)"
        " SELECT gen_random_uuid(), 'USER_LIST', '{}', now() FROM generate_series(1, 600)"
    )

    assert [done()["expired"], done()["expired"]] == [500, 100]


# --- turns --------------------------------------------------------------------------------------


def test_a_turn_that_waits_for_nobody_goes_on(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    lose(scene.cycle, "control")
    scene.cycle.sql(
        "UPDATE instructions SET state = 'waiting', wait_reason = 'turn' WHERE id = :id",
        id=instruction_id,
    )

    assert done() == {"released": 1}

    assert scene.cycle.deliver("llm.generate") == [instruction_id]
    assert scene.said() == ["Hello", "You said: Hello"]


# --- what was left open -------------------------------------------------------------------------


def open_response(scene: Scene, lease: str) -> UUID:
    """A response of which two words are stored, and whose worker says no more."""
    instruction_id = scene.decoded("Hello")
    lose(scene.cycle, "control")
    scene.cycle.sql(
        "WITH question AS (INSERT INTO messages (chat_id, user_id, instruction_id, role, content)"
        " VALUES (:chat_id, :user_id, :id, 'user', 'Hello') RETURNING id), line AS ("
        "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)"
        " VALUES (:id, 1, 'scripted', 'echo', 'another', now() + CAST(:lease AS interval)))"
        "INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, status)"
        " SELECT :chat_id, id, :user_id, :id, 'assistant', '', 'generating' FROM question",
        id=instruction_id,
        user_id=scene.user_id,
        chat_id=scene.chat_id,
        lease=lease,
    )
    deltas = [
        {"type": "response.delta", "kind": "text", "text": word} for word in ("two ", "words")
    ]
    scene.cycle.sql(
        "INSERT INTO events (instruction_id, first, last, events)"
        " VALUES (:id, 1, 3, CAST(:events AS jsonb))",
        id=instruction_id,
        events=json.dumps([{"type": "response.created"}, *deltas]),
    )
    scene.cycle.sql("UPDATE instructions SET turn = 'active' WHERE id = :id", id=instruction_id)
    return instruction_id


def answers(cycle: Cycle) -> list[tuple[str, str, str | None]]:
    query = "SELECT status, content, finish_reason FROM messages WHERE role = 'assistant'"
    return [tuple(row) for row in cycle.sql(query)]


def last_event(cycle: Cycle, instruction_id: UUID) -> dict[str, Any]:
    query = "SELECT events FROM events WHERE instruction_id = :id ORDER BY first DESC LIMIT 1"
    event: dict[str, Any] = cycle.sql(query, id=instruction_id)[0][0][-1]
    return event


@pytest.mark.parametrize("end", ["late", "forgotten"])
def test_a_response_that_was_left_open_is_closed_with_what_was_stored(
    scene: Scene, end: str
) -> None:
    instruction_id = open_response(scene, "-1 second")
    following = scene.decoded("two")
    scene.cycle.execute(following)
    lose(scene.cycle, "control")
    if end == "late":
        scene.cycle.sql(
            "UPDATE instructions SET deadline_at = now() - interval '1 second' WHERE id = :id",
            id=instruction_id,
        )
    else:
        scene.cycle.sql("DELETE FROM instructions WHERE id = :id", id=instruction_id)

    sweep()

    code = "deadline_exceeded" if end == "late" else "failed"
    assert answers(scene.cycle) == [("failed", "two words", code)]
    assert last_event(scene.cycle, instruction_id)["type"] == "response.failed"
    assert scene.cycle.sql("SELECT status FROM attempts") == [("in_doubt",)]
    assert scene.cycle.deliver("llm.generate") == [following]


def test_a_late_response_whose_worker_lives_is_left_to_it_with_its_place(scene: Scene) -> None:
    instruction_id = open_response(scene, "1 minute")
    following = scene.decoded("two")
    scene.cycle.execute(following)
    lose(scene.cycle, "control")
    scene.cycle.sql(
        "UPDATE instructions SET deadline_at = now() - interval '1 second' WHERE id = :id",
        id=instruction_id,
    )

    assert done() == {"expired": 1}

    assert failure(scene.cycle.envelope(instruction_id)).code == "deadline_exceeded"
    assert answers(scene.cycle) == [("generating", "", None)]
    assert scene.cycle.row(following).state == "waiting"
    scene.cycle.sql("UPDATE attempts SET lease_until = now() - interval '1 second'")
    assert done() == {"closed": 1}
    assert answers(scene.cycle) == [("failed", "two words", "deadline_exceeded")]
    assert scene.cycle.deliver("llm.generate") == [following]


# --- alone --------------------------------------------------------------------------------------


def test_only_one_sweeps_at_a_time(cycle: Cycle) -> None:
    instruction_id = at(cycle, "submitted")
    connection = cycle.database.engine.connect()
    with connection, connection.begin():
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({LOCK})")
        assert done() == {}

    assert done() == {"republished": 1}
    assert cycle.finish(instruction_id)


def test_a_type_that_this_version_does_not_know_does_not_stop_the_sweep(cycle: Cycle) -> None:
    """A newer client may have submitted it."""
    cycle.sql(
        "INSERT INTO instructions (id, type, state, data, deadline_at, published_at)"
        " VALUES (gen_random_uuid(), 'CHAT_SUMMON', 'decoded', '{}', now() + interval '1 minute',"
        " now() - interval '1 minute')"
    )
    at(cycle, "submitted")

    assert done()["republished"] >= 1
