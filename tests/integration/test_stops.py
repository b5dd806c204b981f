"""A worker that is told to stop: it finishes what it can in time, and hands back the rest."""

from __future__ import annotations

import os
import signal

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.processes import ManagedProcess
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts
from tests.servers.provider import Exchange
from tests.servers.shapes import openai_chunk

LONG = 300.0  # seconds; no test waits for it


@pytest.fixture
def client() -> LLMChatLinkerClient:
    return LLMChatLinkerClient()


def silence(exchange: Exchange) -> None:
    """A provider that thinks, and has said nothing yet."""
    exchange.pause(LONG)


def send(process: ManagedProcess, number: signal.Signals) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def gone(process: ManagedProcess, seconds: float) -> int | None:
    """The exit code of a process that must end by itself within that time."""
    return process.wait(seconds)


def ledger(client: LLMChatLinkerClient, instruction_id: str) -> list[str]:
    """How the attempts of an instruction ended."""
    instruction = client.get_instruction(instruction_id)["data"]["instruction"]
    return [attempt["status"] for attempt in instruction["attempts"]]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_an_idle_worker_stops_in_good_order(worker: StartWorker, name: str) -> None:
    process = worker("user")
    send(process, signal.Signals[name])
    assert gone(process, 60.0) == 0


def test_what_ends_in_time_is_finished_and_acknowledged(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient
) -> None:
    scene.provider.script(scripts.after(1.0, scripts.answer("in time")))
    worker("control", "database")
    process = worker("llm.generate", stop_timeout=30.0)
    result = client.submit("LLM_RESPONSE_GENERATE", user_input="Hello", **scene.turn)
    scene.provider.wait_for_calls(1)

    send(process, signal.SIGTERM)

    assert gone(process, 30.0) == 0
    assert result.get(timeout=30)["data"]["llm_response"]["content"] == "in time"
    worker("llm.generate")  # would get what was not acknowledged
    assert ledger(client, result.id) == ["answered"]
    assert len(scene.provider.calls) == 1


@pytest.mark.parametrize("signals", [["SIGQUIT"], ["SIGTERM", "SIGTERM"], ["SIGINT", "SIGTERM"]])
def test_a_call_that_has_shown_nothing_is_made_anew_by_another_worker(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient, signals: list[str]
) -> None:
    scene.provider.script(silence, scripts.answer("from the second"))
    worker("control", "database")
    first = worker("llm.generate", stop_timeout=LONG)
    result = client.submit("LLM_RESPONSE_GENERATE", user_input="Hello", **scene.turn)
    scene.provider.wait_for_calls(1)

    for name in signals:  # two that are pending at once are one
        send(first, signal.Signals[name])
        eventually(lambda: "Stopping:" in first.log_text())

    assert gone(first, 60.0) == 0
    worker("llm.generate")
    assert result.get(timeout=30)["data"]["llm_response"]["content"] == "from the second"
    assert ledger(client, result.id) == ["cancelled", "answered"]
    assert len(scene.provider.calls) == 2


def test_a_call_that_was_handed_back_three_times_is_no_poison(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient
) -> None:
    scene.provider.script(silence, silence, silence, scripts.answer("from the fourth"))
    worker("control", "database")
    result = client.submit("LLM_RESPONSE_GENERATE", user_input="Hello", **scene.turn)

    for number in (1, 2, 3):
        process = worker("llm.generate", stop_timeout=LONG)
        scene.provider.wait_for_calls(number)
        send(process, signal.SIGQUIT)
        assert gone(process, 60.0) == 0
    worker("llm.generate")

    assert result.get(timeout=30)["data"]["llm_response"]["content"] == "from the fourth"
    assert ledger(client, result.id) == ["cancelled"] * 3 + ["answered"]


def test_when_the_time_is_over_the_rest_is_handed_back(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient
) -> None:
    scene.provider.script(silence, scripts.answer("from the second"))
    worker("control", "database")
    first = worker("llm.generate", stop_timeout=0.5)
    result = client.submit("LLM_RESPONSE_GENERATE", user_input="Hello", **scene.turn)
    scene.provider.wait_for_calls(1)

    send(first, signal.SIGTERM)

    assert gone(first, 60.0) == 0
    worker("llm.generate")
    assert result.get(timeout=30)["data"]["llm_response"]["content"] == "from the second"


def test_what_was_shown_already_becomes_the_answer(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient
) -> None:
    scene.provider.script(scripts.stream(openai_chunk({"content": "Once upon "}), LONG))
    worker("control", "database")
    process = worker("llm.generate", stop_timeout=LONG)
    with client.stream(user_input="Tell me", **scene.turn) as events:
        for event in events:
            if event.type == "response.delta":
                break
        send(process, signal.SIGQUIT)
        assert gone(process, 60.0) == 0
        answer = events.result().get(timeout=30)["data"]["llm_response"]

    assert answer["content"] == "Once upon "
    assert (answer["status"], answer["finish_reason"]) == ("in_doubt", "in_doubt")
    assert len(scene.provider.calls) == 1


def test_neighbours_of_what_is_handed_back_are_done_by_others(
    scene: Scene, worker: StartWorker, client: LLMChatLinkerClient
) -> None:
    worker("control")
    first = worker("user", "database", concurrency=2)
    results = [client.submit("USER_CREATE", username=f"user{n}", deadline=600) for n in range(40)]
    send(first, signal.SIGTERM)
    assert gone(first, 30.0) == 0
    worker("user", "database")

    assert all(result.get(timeout=30)["status"] == "success" for result in results)
    assert len(client.list_users()["data"]["users"]) == 41
