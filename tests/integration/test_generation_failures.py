"""Generations that fail: each by its code, one call, one line in the ledger, nothing half made."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmchatlinker import secrets
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, Failure
from tests.fixtures.scenes import Scene
from tests.servers import free_ports, scripts
from tests.servers.provider import Script

KEY = "sk-very-secret-key"


def ledger(cycle: Cycle) -> list[tuple[Any, ...]]:
    """Status, error and HTTP status of each attempt."""
    query = "SELECT status, error_code, http_status FROM attempts ORDER BY id"
    return [tuple(row) for row in cycle.sql(query)]


def a_failed_answer(scene: Scene, failed: Failure) -> None:
    """What holds after any failure of a provider."""
    assert failed.stage == "execute"
    question, answer = scene.messages()
    assert (question["content"], question["status"]) == ("Hello", "complete")
    assert (answer["content"], answer["status"]) == ("", "failed")
    assert answer["finish_reason"] == failed.code
    ((status, code, http_status),) = ledger(scene.cycle)
    assert (status, code) == ("failed", failed.code)
    assert http_status == failed.details.get("http_status")
    unfinished = "finished_at IS NULL OR prompt_tokens IS NOT NULL OR cost IS NOT NULL"
    assert scene.cycle.count("attempts", unfinished) == 0


@pytest.mark.parametrize(
    ("script", "http_status"),
    [
        (scripts.error(400), 400),
        (scripts.error(401), 401),
        (scripts.error(404), 404),
        (scripts.error(429, Retry_After="7"), 429),
        (scripts.error(500), 500),
        (scripts.html(502), 502),
        (scripts.html(200), 200),
        (scripts.raw(b""), 200),
        (scripts.raw(b"", 503), 503),
        (scripts.raw(b'{"choices": ['), 200),
        (scripts.raw(b"\xff\xfe\xfd"), 200),
        (scripts.document({}), 200),
        (scripts.document({"choices": []}), 200),
        (scripts.document({"choices": [{}]}), 200),
        (scripts.document({"choices": [{"message": {"content": 5}}]}), 200),
        (scripts.document([]), 200),
        (scripts.redirect("http://localhost:1/v1/chat/completions"), 307),
        (scripts.half, None),
        (scripts.reset, None),
    ],
)
def test_a_providers_failure_is_a_provider_error(
    scene: Scene, script: Script, http_status: int | None
) -> None:
    scene.provider.script(script)

    failed = scene.ask_in_vain("Hello")

    assert failed.code == "provider_error"
    assert failed.details.get("http_status") == http_status
    assert failed.details["provider"] == "scripted"
    assert len(scene.provider.calls) == 1
    a_failed_answer(scene, failed)


def test_a_providers_words_and_its_patience_are_handed_on(scene: Scene) -> None:
    scene.provider.script(scripts.error(429, "Slow down, please.", Retry_After="7"))

    failed = scene.ask_in_vain("Hello")

    assert "Slow down, please." in failed.message
    assert failed.details["retry_after"] == 7


def test_a_provider_that_is_not_there_is_a_provider_error(scene: Scene) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/v1"
    scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, api_endpoint=url)

    failed = scene.ask_in_vain("Hello")

    assert failed.code == "provider_error"
    a_failed_answer(scene, failed)


@pytest.mark.parametrize(
    "script",
    [scripts.drip(0.1), scripts.drip_headers(0.1), scripts.after(250, scripts.echo)],
    ids=["drip", "dripping headers", "silence"],
)
def test_an_answer_that_takes_too_long_is_a_provider_timeout(scene: Scene, script: Script) -> None:
    settings = {"timeouts": {"total": 3.0}}
    scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, settings=settings)
    scene.provider.script(script)
    started = time.monotonic()

    failed = scene.ask_in_vain("Hello")

    assert time.monotonic() - started < 60
    assert failed.code == "provider_timeout"
    assert len(scene.provider.calls) == 1
    a_failed_answer(scene, failed)


def test_a_deadline_ends_a_call_that_could_take_longer(scene: Scene) -> None:
    scene.provider.script(scripts.drip(0.1))
    started = time.monotonic()
    instruction_id = scene.submit("Hello", deadline=5.0)  # in which it is claimed as well

    scene.cycle.finish(instruction_id)

    assert time.monotonic() - started < 60
    envelope = scene.cycle.envelope(instruction_id)
    assert envelope["status"] == "error"
    assert envelope["error"]["code"] in ("provider_timeout", "deadline_exceeded")
    assert [m["status"] for m in scene.messages()] == ["complete", "failed"]


def test_an_answer_without_an_end_is_given_up(scene: Scene, configure: Configure) -> None:
    configure(provider_answer_bytes=1_000_000)
    scene.provider.script(scripts.endless)

    failed = scene.ask_in_vain("Hello")

    assert (failed.code, "1000000 bytes" in failed.message) == ("provider_error", True)
    a_failed_answer(scene, failed)


def test_an_api_key_is_not_repeated_whatever_the_provider_says(
    scene: Scene, secret_keys: str
) -> None:
    scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, api_key=KEY)
    for status in (400, 401, 403, 500):
        scene.provider.script(scripts.error(status, f"your key {KEY} is wrong"))
        assert KEY not in str(scene.ask_in_vain("Hello"))

    assert all(c.headers["authorization"] == f"Bearer {KEY}" for c in scene.provider.calls)


def test_a_key_that_nothing_opens_any_more_fails_before_the_call(
    scene: Scene, secret_keys: str, configure: Configure
) -> None:
    scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, api_key=KEY)
    configure(secret_keys=secrets.generate_key())

    failed = scene.ask_in_vain("Hello")

    assert failed.code == "configuration"
    assert scene.provider.calls == []
    assert ledger(scene.cycle) == []


def test_the_turn_after_a_failure_goes_on_from_what_was_there_before(scene: Scene) -> None:
    scene.ask("one")
    scene.provider.script(scripts.error(500))
    scene.ask_in_vain("two")

    scene.ask("three")

    assert scene.said() == ["one", "You said: one", "two", "", "three", "You said: three"]
    sent = [m["content"] for m in scene.provider.calls[-1].body["messages"]]
    assert sent == ["one", "You said: one", "three"], "what was never answered is not sent"
    assert [row[0] for row in ledger(scene.cycle)] == ["answered", "failed", "answered"]


def test_a_failed_regeneration_is_a_failed_sibling(scene: Scene) -> None:
    answer = scene.ask("one")
    scene.provider.script(scripts.error(500))

    failed = scene.cycle.fail("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])

    assert failed.code == "provider_error"
    shown = [(m["content"], m["status"]) for m in scene.messages(branch="all")]
    assert shown == [("one", "complete"), ("You said: one", "complete"), ("", "failed")]


@pytest.mark.parametrize(
    ("kind", "more", "field"),
    [
        ("ollama", {"parameters": {"tool_choice": "required"}}, "parameters.tool_choice"),
        (
            "anthropic",
            {"parameters": {"response_format": {"type": "json_object"}}},
            "parameters.response_format",
        ),
        (
            "ollama",
            {"user_input": [{"type": "image_url", "image_url": {"url": "https://example.com/c"}}]},
            "user_input",
        ),
    ],
)
def test_what_a_kind_of_provider_can_not_be_asked_is_no_call_and_no_line_in_the_ledger(
    scene: Scene, kind: str, more: dict[str, Any], field: str
) -> None:
    scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, kind=kind)
    data = scene.turn | {"user_input": "Hello"} | more

    failed = scene.cycle.fail("LLM_RESPONSE_GENERATE", **data)

    assert (failed.code, failed.stage, failed.fields) == ("invalid_data", "execute", [field])
    assert ledger(scene.cycle) == [] == scene.provider.calls
    assert scene.cycle.count("messages") == 0


@pytest.mark.usefixtures("unwatched")
@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("CHAT_DELETE", {"chat_id": 1}, "not_found"),
        ("USER_DELETE", {"user_id": 1}, "not_found"),
    ],
)
def test_an_answer_to_a_chat_that_was_deleted_meanwhile_is_in_the_ledger_only(
    scene: Scene, name: str, data: dict[str, int], code: str
) -> None:
    def delete(exchange: scripts.Exchange) -> None:
        scene.cycle.do(name, **data)
        scripts.echo(exchange)

    scene.provider.script(delete)

    failed = scene.ask_in_vain("Hello")

    assert failed.code == code
    assert ledger(scene.cycle) == [("answered", None, None)]
    assert scene.cycle.count("messages") == 0


def test_an_llm_that_was_deleted_meanwhile_leaves_its_answer(scene: Scene) -> None:
    def delete(exchange: scripts.Exchange) -> None:
        scene.cycle.do("LLM_PROVIDER_DELETE", provider_id=scene.provider_id, force=True)
        scripts.echo(exchange)

    scene.provider.script(delete)

    answer = scene.ask("Hello")

    assert (answer["llm_id"], answer["llm_name"]) == (None, "echo")
    assert answer["content"] == "You said: Hello"


@pytest.mark.parametrize(
    "script",
    [
        scripts.raw(b"[" * 200_000, 500),
        scripts.raw(b'{"choices": [{"message": {"tool_calls": [NaN]}}]}'),
        scripts.error(429, Retry_After="\xb2"),
    ],
    ids=["nested without end", "NaN", "Retry-After of a superscript"],
)
def test_no_answer_whatever_is_a_defect_of_ours(scene: Scene, script: Script) -> None:
    scene.provider.script(script)
    instruction_id = scene.submit("Hello")
    scene.cycle.finish(instruction_id)

    envelope = scene.cycle.envelope(instruction_id)

    assert envelope.get("error", {}).get("code") in (None, "provider_error")
