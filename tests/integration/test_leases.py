"""Calls that are under way: left alone while their worker lives, in doubt once it has died."""

from __future__ import annotations

import os
import signal
from uuid import UUID

from llmchatlinker.results.result import InstructionResult
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts


def claimed(scene: Scene, lease: str) -> UUID:
    """A turn whose worker is in the middle of its call, with a lease until then."""
    instruction_id = scene.decoded("Hello")
    scene.cycle.sql(
        "INSERT INTO attempts (instruction_id, number, user_id, llm_id, provider_name, llm_name,"
        " worker, lease_until) VALUES (:id, 1, :user_id, :llm_id, 'scripted', 'echo', 'another',"
        " now() + CAST(:lease AS interval))",
        id=instruction_id,
        user_id=scene.user_id,
        llm_id=scene.llm_id,
        lease=lease,
    )
    scene.cycle.sql("UPDATE instructions SET turn = 'active' WHERE id = :id", id=instruction_id)
    scene.cycle.sql(
        "WITH question AS (INSERT INTO messages (chat_id, user_id, instruction_id, role, content)"
        " VALUES (:chat_id, :user_id, :id, 'user', 'Hello') RETURNING id), answer AS ("
        "INSERT INTO messages (chat_id, parent_id, user_id, instruction_id, role, content, status,"
        " llm_id, llm_name) SELECT :chat_id, id, :user_id, :id, 'assistant', '', 'generating',"
        " :llm_id, 'echo' FROM question RETURNING id)"
        "UPDATE chats SET active_message_id = answer.id FROM answer WHERE chats.id = :chat_id",
        id=instruction_id,
        user_id=scene.user_id,
        chat_id=scene.chat_id,
        llm_id=scene.llm_id,
    )
    return instruction_id


def statuses(cycle: Cycle) -> list[str]:
    return [row[0] for row in cycle.sql("SELECT status FROM attempts ORDER BY id")]


def test_a_live_lease_is_left_alone(scene: Scene) -> None:
    instruction_id = claimed(scene, "10 seconds")

    assert not scene.cycle.execute(instruction_id)

    assert scene.provider.calls == []
    assert statuses(scene.cycle) == ["started"]
    row = scene.cycle.row(instruction_id)
    assert (row.state, row.turn, row.outcome) == ("decoded", "active", None)


def test_a_dead_lease_leaves_the_call_in_doubt_and_nobody_calls_again(scene: Scene) -> None:
    instruction_id = claimed(scene, "-1 second")

    assert scene.cycle.execute(instruction_id)
    scene.cycle.store(instruction_id)

    failed = failure(scene.cycle.envelope(instruction_id))
    assert (failed.code, failed.stage) == ("in_doubt", "execute")
    assert failed.details == {"attempt": 1, "provider": "scripted"}
    assert scene.provider.calls == []
    assert statuses(scene.cycle) == ["in_doubt"]
    assert [(m["content"], m["status"]) for m in scene.messages()] == [
        ("Hello", "complete"),
        ("", "in_doubt"),
    ]


def test_after_a_call_in_doubt_the_next_turn_goes_on(scene: Scene) -> None:
    first = claimed(scene, "-1 second")
    second = scene.decoded("two")
    scene.cycle.execute(second)

    scene.cycle.execute(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    assert scene.said() == ["Hello", "", "two", "You said: two"]
    assert [m["content"] for m in scene.provider.calls[0].body["messages"]] == ["two"]


def test_a_lease_ends_with_its_call(scene: Scene) -> None:
    scene.ask("Hello")

    assert statuses(scene.cycle) == ["answered"]


def test_a_lease_is_renewed_as_long_as_the_call_takes(scene: Scene, worker: StartWorker) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate)
    worker("llm.generate", lease=3.0)  # renewed every second
    instruction_id = scene.decoded("Hello")
    ends = set()

    def renewed() -> bool:
        ((lease_until, alive),) = scene.cycle.sql(
            "SELECT lease_until, lease_until > now() FROM attempts"
        )
        assert alive, "the lease of a living worker ran out"
        ends.add(lease_until)
        return len(ends) > 5

    scene.cycle.publish(instruction_id)
    scene.provider.wait_for_calls(1)
    try:
        eventually(renewed)
    finally:
        gate.open()
    eventually(lambda: scene.cycle.row(instruction_id).state in ("executed", "final"))


def test_a_worker_that_is_killed_leaves_its_call_in_doubt_and_nobody_calls_again(
    scene: Scene, worker: StartWorker
) -> None:
    scene.provider.script(scripts.Gate())
    first = worker(lease=1.0)
    instruction_id = scene.submit("Hello")
    scene.provider.wait_for_calls(1)
    assert first.pid is not None

    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    worker(lease=1.0, sweep_interval=0.2, sweep_grace=0.2)

    eventually(lambda: scene.cycle.row(instruction_id).state == "final")
    failed = failure(scene.cycle.envelope(instruction_id))
    assert failed.code == "in_doubt"
    assert len(scene.provider.calls) == 1
    assert statuses(scene.cycle) == ["in_doubt"]


def test_what_a_killed_worker_had_stored_becomes_the_answer(
    scene: Scene, worker: StartWorker
) -> None:
    scene.provider.script(scripts.slow(10_000, 50))
    first = worker(lease=1.0)
    instruction_id = scene.submit("Hello")
    eventually(lambda: scene.cycle.count("attempts", "first_delta_at IS NOT NULL") == 1)
    assert first.pid is not None

    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    worker(lease=1.0, sweep_interval=0.2, sweep_grace=0.2, in_doubt="retry")

    eventually(lambda: scene.cycle.row(instruction_id).state == "final")
    envelope = scene.cycle.envelope(instruction_id)
    answer = envelope["data"]["llm_response"]
    assert (envelope["status"], answer["status"]) == ("success", "in_doubt")
    rows = scene.cycle.sql("SELECT events FROM events ORDER BY first")
    deltas = [e["text"] for row in rows for e in row[0] if e["type"] == "response.delta"]
    assert answer["content"] == "".join(deltas) != ""
    assert len(scene.provider.calls) == 1
    assert statuses(scene.cycle) == ["in_doubt"]


def test_a_cancel_of_a_killed_workers_turn_counts_when_the_lease_is_over(scene: Scene) -> None:
    instruction_id = claimed(scene, "1 minute")
    InstructionResult(str(instruction_id)).revoke()
    assert scene.cycle.row(instruction_id).outcome is None

    scene.cycle.sql("UPDATE attempts SET lease_until = now() - interval '1 second'")
    scene.cycle.finish(instruction_id, "execute")

    assert failure(scene.cycle.envelope(instruction_id)).code == "cancelled"
    assert statuses(scene.cycle) == ["in_doubt"]
    assert scene.messages()[-1]["status"] == "cancelled"
    assert scene.provider.calls == []
