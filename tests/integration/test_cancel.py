"""Cancelling: from anywhere, at any moment, with what was said until then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.units import cancelling
from llmchatlinker.units.context import estimate, tokens
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import patient, scripts

#: Seconds from the request to the end of the connection; 0.5 on an idle machine.
SOON = 30.0
Way = Callable[[UUID], None]


@contextmanager
def under_way(scene: Scene, instruction_id: UUID) -> Iterator[None]:
    """The generation is being executed, and has begun to speak."""
    thread = threading.Thread(target=scene.cycle.execute, args=[instruction_id])
    thread.start()
    try:
        eventually(lambda: scene.cycle.count("attempts", "first_delta_at IS NOT NULL") == 1)
        yield
    finally:
        thread.join()


def by_instruction(instruction_id: UUID) -> None:
    LLMChatLinkerClient().submit("LLM_RESPONSE_CANCEL", instruction_id=str(instruction_id))


WAYS: dict[str, Way] = {
    "LLM_RESPONSE_CANCEL": by_instruction,
    "AsyncResult.revoke": lambda i: InstructionResult(str(i)).revoke(),
    "AsyncResult.revoke, terminate": lambda i: app.AsyncResult(str(i)).revoke(terminate=True),
    "app.control.revoke": lambda i: app.control.revoke(str(i)),
    "a revoked stage": lambda i: app.backend.mark_as_revoked(str(i)),
}
each_way = pytest.mark.parametrize("cancel", WAYS.values(), ids=WAYS.keys())


def ledger(cycle: Cycle) -> list[str]:
    return [row[0] for row in cycle.sql("SELECT status FROM attempts ORDER BY id")]


def events(cycle: Cycle, instruction_id: UUID) -> list[dict[str, Any]]:
    rows = cycle.sql(
        "SELECT events FROM events WHERE instruction_id = :id ORDER BY first", id=instruction_id
    )
    return [event for row in rows for event in row[0]]


@each_way
def test_a_call_is_broken_off_and_what_came_of_it_is_kept(scene: Scene, cancel: Way) -> None:
    scene.provider.script(scripts.slow(10_000, 50))
    instruction_id = scene.decoded("Hello")

    with under_way(scene, instruction_id):
        started = time.monotonic()
        cancel(instruction_id)
    scene.cycle.store(instruction_id)

    assert time.monotonic() - started < SOON
    assert scene.provider.wait_for_leaving() - started < SOON
    envelope = scene.cycle.envelope(instruction_id)
    assert failure(envelope).code == "cancelled"
    response = envelope["data"]["llm_response"]
    assert (response["status"], response["finish_reason"]) == ("cancelled", "cancelled")
    said = "".join(
        e["text"] for e in events(scene.cycle, instruction_id) if e["type"] == "response.delta"
    )
    assert response["content"] == said != ""
    assert scene.messages()[-1] == response | {"active": True}
    assert events(scene.cycle, instruction_id)[-1]["type"] == "response.cancelled"
    assert (ledger(scene.cycle), len(scene.provider.calls)) == (["cancelled"], 1)


def test_what_was_used_is_estimated_where_the_provider_never_came_to_say_it(scene: Scene) -> None:
    price = {"prompt": 1_000_000, "completion": 1_000_000}
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"price": price})
    scene.provider.script(scripts.slow(10_000, 50))
    instruction_id = scene.decoded("Hello")

    with under_way(scene, instruction_id):
        by_instruction(instruction_id)
    scene.cycle.store(instruction_id)

    response = scene.cycle.envelope(instruction_id)["data"]["llm_response"]
    counts = {
        "prompt_tokens": estimate("Hello"),
        "completion_tokens": tokens(response["content"]),
        "total_tokens": estimate("Hello") + tokens(response["content"]),
    }
    total = counts["total_tokens"]
    assert response["usage"] == counts | {"cost": total, "estimated": True}
    told = next(e for e in events(scene.cycle, instruction_id) if e["type"] == "response.usage")
    assert told["usage"] == response["usage"]
    shown = scene.cycle.do("INSTRUCTION_GET", instruction_id=str(instruction_id))["instruction"]
    (attempt,) = shown["attempts"]
    assert {**attempt, **counts, "cost": total, "usage_estimated": True} == attempt
    scene.ask("one")
    (line,) = scene.cycle.do("USAGE_LIST")["usage"]
    assert line["estimated_tokens"] == total
    assert line["cost"] == line["total_tokens"] > total


def test_an_estimate_is_corrected_by_what_the_provider_counts_but_not_by_other_estimates(
    scene: Scene,
) -> None:
    scene.ask("word " * 300)  # 300 tokens by the provider, 508 by ours
    used = []
    for _ in range(2):
        scene.cycle.sql("UPDATE attempts SET first_delta_at = NULL")
        scene.provider.script(scripts.slow(10_000, 50))
        other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]
        instruction_id = scene.decoded("word " * 300, chat_id=other["chat_id"])
        with under_way(scene, instruction_id):
            by_instruction(instruction_id)
        scene.cycle.store(instruction_id)
        used.append(scene.cycle.envelope(instruction_id)["data"]["llm_response"]["usage"])

    assert [usage["prompt_tokens"] for usage in used] == [300, 300]


@each_way
@pytest.mark.parametrize("state", ["submitted", "decoded", "waiting"])
def test_what_has_not_begun_ends_at_once(scene: Scene, cancel: Way, state: str) -> None:
    first = scene.decoded("one")
    instruction_id = scene.submit("two")
    if state != "submitted":
        scene.cycle.decode(instruction_id)
    if state == "waiting":
        scene.cycle.execute(instruction_id)
    assert scene.cycle.row(instruction_id).state == state

    cancel(instruction_id)

    assert scene.cycle.row(instruction_id).state == "final"
    assert failure(scene.cycle.envelope(instruction_id)).code == "cancelled"
    scene.cycle.finish(instruction_id)
    scene.cycle.execute(first)
    assert scene.said() == ["one", "You said: one"]
    assert len(scene.provider.calls) == 1


def test_a_waiting_turn_goes_on_after_a_cancelled_one(scene: Scene) -> None:
    scene.provider.script(scripts.slow(10_000, 50))
    first, second = scene.decoded("one"), scene.decoded("two")

    with under_way(scene, first):
        scene.cycle.execute(second)
        assert scene.cycle.row(second).state == "waiting"
        by_instruction(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    assert scene.said()[-2:] == ["two", "You said: two"]


def test_a_waiting_turn_goes_on_after_one_that_was_cancelled_before_it_began(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)

    by_instruction(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    assert scene.said() == ["two", "You said: two"]


# --- what the cancel itself says ----------------------------------------------------------------


def cancelled(scene: Scene, instruction_id: UUID | str) -> tuple[str, Any]:
    """What LLM_RESPONSE_CANCEL says, and the response that it shows."""
    envelope = scene.cycle.run("LLM_RESPONSE_CANCEL", instruction_id=str(instruction_id))
    assert envelope["status"] == "success", envelope
    return envelope["message"], envelope["data"]["llm_response"]


def test_a_cancel_returns_the_response_as_far_as_it_came(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancelling, "PATIENCE", 60.0)
    scene.provider.script(scripts.slow(10_000, 50))
    instruction_id = scene.decoded("Hello")

    with under_way(scene, instruction_id):
        message, response = cancelled(scene, instruction_id)

    assert message == "Response cancelled."
    assert response["status"] == "cancelled"
    assert response["content"] == scene.said()[-1] != ""


def test_a_cancel_does_not_wait_for_ever_for_a_worker_that_is_gone(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    scene.cycle.sql("UPDATE instructions SET turn = 'active' WHERE id = :id", id=instruction_id)
    scene.cycle.sql(
        "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)"
        " VALUES (:id, 1, 'scripted', 'echo', 'another', now() + interval '1 minute')",
        id=instruction_id,
    )

    message, response = cancelled(scene, instruction_id)
    assert (message, response) == ("The response is being cancelled.", None)

    scene.cycle.sql("UPDATE attempts SET lease_until = now() - interval '1 second'")
    scene.cycle.finish(instruction_id, "execute")
    assert failure(scene.cycle.envelope(instruction_id)).code in ("cancelled", "not_found")
    assert scene.provider.calls == []


def test_cancelling_what_has_ended_changes_nothing_and_says_so(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    scene.cycle.finish(instruction_id, "execute")
    before = scene.cycle.envelope(instruction_id)

    message, response = cancelled(scene, instruction_id)
    InstructionResult(str(instruction_id)).revoke()

    assert message == "The response was complete already; nothing was cancelled."
    assert response == before["data"]["llm_response"]
    assert scene.cycle.envelope(instruction_id) == before


def test_cancelling_twice_says_that_it_was_cancelled_already(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")

    assert cancelled(scene, instruction_id) == ("Response cancelled before it began.", None)
    assert cancelled(scene, instruction_id) == ("The response was cancelled already.", None)


def test_cancelling_what_has_failed_says_how(scene: Scene) -> None:
    scene.provider.script(scripts.error(400))
    instruction_id = scene.decoded("Hello")
    scene.cycle.finish(instruction_id, "execute")

    message, response = cancelled(scene, instruction_id)

    assert message == "The response had ended already, with provider_error; nothing was cancelled."
    assert response["status"] == "failed"


def test_cancelling_what_is_nobodys_is_not_found(cycle: Cycle) -> None:
    failed = cycle.fail("LLM_RESPONSE_CANCEL", instruction_id=str(new_instruction_id()))

    assert (failed.code, failed.details["field"]) == ("not_found", "instruction_id")


def test_only_generations_can_be_cancelled_by_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")

    failed = cycle.fail("LLM_RESPONSE_CANCEL", instruction_id=str(instruction_id))

    assert (failed.code, failed.fields) == ("invalid_data", ["instruction_id"])
    assert cycle.finish(instruction_id)
    assert cycle.count("users") == 1


def test_revoking_another_instruction_ends_it_before_its_work(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")

    InstructionResult(str(instruction_id)).revoke()
    cycle.finish(instruction_id, "execute")

    assert failure(cycle.envelope(instruction_id)).code == "cancelled"
    assert cycle.count("users") == 0


# --- real workers -------------------------------------------------------------------------------


def test_a_worker_elsewhere_lets_go_of_the_provider(scene: Scene, worker: StartWorker) -> None:
    worker(include=patient.MODULE)
    scene.provider.script(scripts.slow(10_000, 50))
    client = LLMChatLinkerClient()
    running = client.submit("LLM_RESPONSE_GENERATE", **scene.turn, user_input="one")
    waiting = client.submit("LLM_RESPONSE_GENERATE", **scene.turn, user_input="two")
    eventually(lambda: scene.cycle.count("attempts", "first_delta_at IS NOT NULL") == 1)
    eventually(lambda: scene.cycle.row(UUID(waiting.id)).state == "waiting")
    started = time.monotonic()

    envelope = client.cancel(running.id)

    assert scene.provider.wait_for_leaving() - started < SOON
    assert envelope["message"] == "Response cancelled."
    assert running.get(timeout=30)["data"]["llm_response"] == envelope["data"]["llm_response"]
    assert waiting.get(timeout=30)["data"]["llm_response"]["content"] == "You said: two"
    assert ledger(scene.cycle) == ["cancelled", "answered"]
    assert len(scene.provider.calls) == 2
