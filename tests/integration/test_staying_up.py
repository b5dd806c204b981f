"""Retries, fallbacks and cooldowns: what a turn does while its provider is in trouble."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.providers import retrying
from llmchatlinker.waiting import release_due
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.servers import scripts
from tests.servers.provider import Script, ScriptedProvider


@pytest.fixture(autouse=True)
def two_retries_at_once(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(provider_retries=2)
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)


def ledger(cycle: Cycle) -> list[tuple[str, int | None, str]]:
    """Status, HTTP status and LLM of each attempt."""
    query = "SELECT status, http_status, llm_name FROM attempts ORDER BY id"
    return [tuple(row) for row in cycle.sql(query)]


def events(cycle: Cycle) -> list[dict[str, Any]]:
    rows = cycle.sql("SELECT events FROM events ORDER BY instruction_id, first")
    return [event for row in rows for event in row[0]]


def types(cycle: Cycle) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events(cycle)]


def finished(scene: Scene, instruction_id: UUID) -> dict[str, Any]:
    """Deliver what is sent on until the instruction is final; the answer."""

    def final() -> bool:
        scene.cycle.deliver("llm.generate")
        return scene.cycle.row(instruction_id).state == "final"

    eventually(final)
    answer: dict[str, Any] = scene.cycle.envelope(instruction_id)["data"]["llm_response"]
    return answer


# --- retries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", [scripts.error(500), scripts.error(503), scripts.error(408), scripts.reset]
)
def test_a_call_that_fails_before_its_first_token_is_made_again(
    scene: Scene, script: Script
) -> None:
    scene.provider.script(script, script)

    answer = scene.ask("Hello")

    assert (answer["content"], answer["message_id"]) == ("You said: Hello", 2)
    assert [line[0] for line in ledger(scene.cycle)] == ["failed", "failed", "answered"]
    assert len(scene.provider.calls) == 3
    assert types(scene.cycle) == ["created", "delta", "delta", "delta", "usage", "completed"]


def test_after_the_last_retry_the_turn_has_failed(scene: Scene) -> None:
    scene.provider.script(*[scripts.error(500)] * 3)

    failed = scene.ask_in_vain("Hello")

    assert failed.code == "provider_error"
    assert [line[:2] for line in ledger(scene.cycle)] == [("failed", 500)] * 3
    assert types(scene.cycle) == ["created", "failed"]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_waiting_does_not_mend_is_not_tried_again(scene: Scene, status: int) -> None:
    scene.provider.script(scripts.error(status))

    assert scene.ask_in_vain("Hello").details["http_status"] == status
    assert len(scene.provider.calls) == 1


def test_after_the_first_token_nothing_is_tried_again(scene: Scene) -> None:
    other = scene.cycle.do("LLM_ADD", provider_id=scene.provider_id, llm_name="other")["llm"]
    chunk = b'data: {"choices": [{"index": 0, "delta": {"content": "half"}}]}\n\n'
    scene.provider.script(scripts.stream(chunk, 0.3, ending="reset"))
    instruction_id = scene.submit("Hello", fallbacks=[other["llm_id"]])
    scene.cycle.finish(instruction_id)

    envelope = scene.cycle.envelope(instruction_id)

    assert failure(envelope).code == "provider_error"
    assert envelope["data"]["llm_response"]["content"] == "half"
    assert envelope["data"]["llm_response"]["status"] == "failed"
    assert len(scene.provider.calls) == 1
    assert scene.said() == ["Hello", "half"]


def test_a_long_retry_after_is_waited_for_without_a_worker(scene: Scene) -> None:
    scene.provider.script(scripts.error(429, Retry_After="5"))
    instruction_id = scene.decoded("Hello")
    started = time.monotonic()

    assert not scene.cycle.execute(instruction_id)

    row = scene.cycle.row(instruction_id)
    assert (row.state, row.wait_reason, row.turn) == ("waiting", "retry", "active")
    assert scene.messages()[-1]["status"] == "generating"
    assert finished(scene, instruction_id)["content"] == "You said: Hello"
    assert time.monotonic() - started >= 5
    assert len(scene.provider.calls) == 2


def test_a_wait_that_ends_behind_the_deadline_is_not_begun(scene: Scene) -> None:
    scene.provider.script(scripts.error(429, Retry_After="3000"))

    failed = scene.ask_in_vain("Hello")

    assert (failed.code, failed.details["retry_after"]) == ("provider_error", 3000)


def test_a_parked_retry_can_be_cancelled(scene: Scene) -> None:
    scene.provider.script(scripts.error(429, Retry_After="100"))
    instruction_id = scene.decoded("Hello")
    scene.cycle.execute(instruction_id)

    said = scene.cycle.run("LLM_RESPONSE_CANCEL", instruction_id=str(instruction_id))

    assert said["message"] == "Response cancelled."
    assert scene.messages()[-1]["status"] == "cancelled"
    assert types(scene.cycle) == ["created", "cancelled"]
    assert len(scene.provider.calls) == 1


# --- fallbacks ----------------------------------------------------------------------------------


@pytest.fixture
def second() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as server:
        yield server


@pytest.fixture
def fallback(scene: Scene, second: ScriptedProvider) -> int:
    """An LLM of another provider."""
    scene.cycle.do("LLM_PROVIDER_ADD", name="second", api_endpoint=second.base_url)
    llm = scene.cycle.do("LLM_ADD", provider_name="second", llm_name="spare")["llm"]
    return int(llm["llm_id"])


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_fallback_answers_where_the_llm_fails(
    scene: Scene, second: ScriptedProvider, fallback: int, status: int
) -> None:
    scene.provider.script(*[scripts.error(status)] * 3)

    answer = scene.ask("Hello", fallbacks=[{"provider_name": "second", "llm_name": "spare"}])

    assert (answer["llm_id"], answer["llm_name"]) == (fallback, "spare")
    assert answer["content"] == "You said: Hello"
    made = 3 if status == 500 else 1
    assert [line[2] for line in ledger(scene.cycle)] == ["echo"] * made + ["spare"]
    assert (len(scene.provider.calls), len(second.calls)) == (made, 1)
    event = next(e for e in events(scene.cycle) if e["type"] == "response.fallback")
    assert (event["llm_id"], event["instead_of"]) == (fallback, scene.llm_id)
    assert event["reason"] == "provider_error"


def test_what_is_wrong_with_the_request_is_wrong_everywhere(
    scene: Scene, second: ScriptedProvider, fallback: int
) -> None:
    scene.provider.script(scripts.error(400))

    scene.ask_in_vain("Hello", fallbacks=[fallback])

    assert second.calls == []


def test_a_fallback_is_not_waited_for(
    scene: Scene, second: ScriptedProvider, fallback: int
) -> None:
    scene.provider.script(scripts.error(429, Retry_After="100"))

    assert scene.ask("Hello", fallbacks=[fallback])["llm_id"] == fallback


def test_where_all_fail_the_last_failure_is_the_outcome(
    scene: Scene, second: ScriptedProvider, fallback: int
) -> None:
    scene.provider.script(scripts.error(401))
    second.script(scripts.error(404))

    failed = scene.ask_in_vain("Hello", fallbacks=[fallback])

    assert (failed.details["provider"], failed.details["http_status"]) == ("second", 404)


@pytest.mark.parametrize("why", ["its kind lacks a parameter", "its window is too small"])
def test_a_fallback_answers_what_the_llm_can_not_be_asked(
    scene: Scene, second: ScriptedProvider, fallback: int, why: str
) -> None:
    if why == "its window is too small":
        settings = {"context_window": 16}
        scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings=settings)
    else:
        scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, kind="ollama")

    answer = scene.ask("Hello " * 10, fallbacks=[fallback], parameters={"tool_choice": "required"})

    assert answer["llm_id"] == fallback
    assert (len(scene.provider.calls), len(second.calls)) == (0, 1)
    assert ledger(scene.cycle) == [("answered", None, "spare")]
    event = next(e for e in events(scene.cycle) if e["type"] == "response.fallback")
    assert (event["instead_of"], event["reason"]) == (scene.llm_id, "invalid_data")


def test_a_fallback_that_is_not_there_is_found_by_decode(scene: Scene) -> None:
    failed = scene.ask_in_vain("Hello", fallbacks=[{"llm_id": 77}])

    assert (failed.code, failed.stage) == ("not_found", "decode")
    assert failed.details["field"] == "fallbacks.0.llm_id"


# --- cooldowns ----------------------------------------------------------------------------------


def test_a_provider_that_fails_again_and_again_is_left_alone_by_all(
    scene: Scene, second: ScriptedProvider, fallback: int, configure: Configure
) -> None:
    configure(provider_retries=0, cooldown_failures=2, cooldown=30.0)
    scene.provider.script(*[scripts.error(500)] * 2)
    for _ in range(2):
        scene.ask_in_vain("Hello")

    answer = scene.ask("Hello", fallbacks=[fallback])

    assert answer["llm_id"] == fallback
    assert len(scene.provider.calls) == 2
    event = next(e for e in events(scene.cycle) if e["type"] == "response.fallback")
    assert event["reason"] == "cooldown"


def a_minute_later(scene: Scene) -> None:
    """The cooldown of a minute is over."""
    scene.cycle.sql("UPDATE provider_health SET cooldown_until = clock_timestamp()")
    scene.cycle.sql("UPDATE instructions SET not_before = now() WHERE state = 'waiting'")
    release_due()


def test_without_a_fallback_a_cooldown_is_waited_for_and_the_first_answer_ends_it(
    scene: Scene, configure: Configure
) -> None:
    configure(provider_retries=0, cooldown_failures=1, cooldown=60.0)
    scene.provider.script(scripts.error(500))
    scene.ask_in_vain("Hello")
    other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]
    waiting = [scene.decoded("one"), scene.decoded("two", chat_id=other["chat_id"])]

    assert [scene.cycle.execute(i) for i in waiting] == [False, False]

    assert {scene.cycle.row(i).wait_reason for i in waiting} == {"cooldown"}
    a_minute_later(scene)
    for instruction_id in waiting:
        assert finished(scene, instruction_id)["status"] == "complete"
    assert scene.cycle.sql("SELECT failures, cooldown_until FROM provider_health") == [(0, None)]


def test_a_retry_after_is_kept_by_every_turn_of_the_provider(scene: Scene) -> None:
    scene.provider.script(scripts.error(429, Retry_After="60"))
    other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]
    waiting = [scene.decoded("one"), scene.decoded("two", chat_id=other["chat_id"])]

    for instruction_id in waiting:
        assert not scene.cycle.execute(instruction_id)

    assert [scene.cycle.row(i).wait_reason for i in waiting] == ["retry", "cooldown"]
    assert len(scene.provider.calls) == 1
    a_minute_later(scene)
    for instruction_id in waiting:
        assert finished(scene, instruction_id)["status"] == "complete"
    assert len(scene.provider.calls) == 3


def cools_down_meanwhile(scene: Scene, then: Script) -> None:
    """The next call fails or answers as ``then`` does, behind the failures of others."""
    scene.cycle.sql(
        "INSERT INTO provider_health (provider_id, failures) VALUES (:p, 4)", p=scene.provider_id
    )

    def run(exchange: scripts.Exchange) -> None:
        scene.cycle.sql(
            "UPDATE provider_health SET failures = 5,"
            " cooldown_until = clock_timestamp() + interval '20 seconds'"
        )
        then(exchange)

    scene.provider.script(run)


def cooldown_left(scene: Scene) -> float:
    query = "SELECT extract(epoch FROM cooldown_until - clock_timestamp()) FROM provider_health"
    return float(scene.cycle.sql(query)[0][0] or 0)


def test_a_retry_after_prolongs_a_cooldown_that_is_shorter(scene: Scene) -> None:
    cools_down_meanwhile(scene, scripts.error(503, Retry_After="1000"))

    scene.ask_in_vain("Hello", deadline=30)

    assert 900 < cooldown_left(scene) <= 1000


def test_an_answer_to_an_older_call_does_not_end_a_cooldown(scene: Scene) -> None:
    cools_down_meanwhile(scene, scripts.echo)

    assert scene.ask("Hello")["content"] == "You said: Hello"

    assert cooldown_left(scene) > 0


# --- in doubt -----------------------------------------------------------------------------------


def test_an_attempt_in_doubt_is_tried_again_where_the_setting_says_so(
    scene: Scene, configure: Configure
) -> None:
    configure(in_doubt="retry")
    instruction_id = scene.decoded("Hello")
    scene.provider.script(lambda exchange: exchange.pause(0.2))
    kill_after_claim(scene, instruction_id)

    scene.cycle.finish(instruction_id, "execute")

    assert scene.cycle.envelope(instruction_id)["status"] == "success"
    assert [line[0] for line in ledger(scene.cycle)] == ["in_doubt", "answered"]
    assert scene.said() == ["Hello", "You said: Hello"]
    assert len(scene.provider.calls) == 1


def test_a_call_that_ends_its_worker_each_time_is_not_made_for_ever(
    scene: Scene, configure: Configure
) -> None:
    configure(in_doubt="retry", starts=3)
    instruction_id = scene.decoded("Hello")
    for number in range(3):
        kill_after_claim(scene, instruction_id, f"worker {number}")

    scene.cycle.finish(instruction_id, "execute")

    assert failure(scene.cycle.envelope(instruction_id)).code == "in_doubt"
    assert [line[0] for line in ledger(scene.cycle)] == ["in_doubt"] * 3
    assert scene.provider.calls == []


def kill_after_claim(scene: Scene, instruction_id: UUID, worker: str = "another") -> None:
    """Claim it as a worker that dies at once."""
    from llmchatlinker.instructions import LLM_RESPONSE_GENERATE as SPEC
    from llmchatlinker.provider_stage import _claim

    handler: Any = SPEC.handler
    _, work = _claim(instruction_id, SPEC, handler, worker)
    assert work is not None
    scene.provider._scripts.clear()
    scene.cycle.sql("UPDATE attempts SET lease_until = now() - interval '1 second'")


def test_a_text_that_was_stored_becomes_the_answer_of_a_worker_that_died(
    scene: Scene, configure: Configure
) -> None:
    configure(in_doubt="retry")
    instruction_id = scene.decoded("Hello")
    kill_after_claim(scene, instruction_id)
    scene.cycle.sql(
        "INSERT INTO events (instruction_id, first, last, attempt_id, events) SELECT :id, 2, 2, id,"
        """ CAST('[{"type": "response.delta", "kind": "text", "text": "half"}]' AS jsonb)"""
        " FROM attempts",
        id=instruction_id,
    )

    scene.cycle.finish(instruction_id, "execute")

    answer = scene.cycle.envelope(instruction_id)["data"]["llm_response"]
    assert (answer["content"], answer["status"], answer["finish_reason"]) == (
        "half",
        "in_doubt",
        "in_doubt",
    )
    assert scene.cycle.envelope(instruction_id)["status"] == "success"
    assert scene.provider.calls == []
    assert ledger(scene.cycle) == [("in_doubt", None, "echo")]
