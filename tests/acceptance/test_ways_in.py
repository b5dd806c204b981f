"""The three ways in, against real workers and the real local LLM."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.model import LocalModel, fetch_model
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.instructions import ALIASES, INSTRUCTION_SET, USER_CREATE
from llmchatlinker.message_queue import publish_message
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import QUEUE_NAMES
from tests.fixtures.cycles import Cycle
from tests.fixtures.workers import StartWorker, environment
from tests.servers.provider import ScriptedProvider, echo
from tests.servers.scripts import after

POLLING_PROGRAM = """
import sys, time
from llmchatlinker import app
result = app.AsyncResult(sys.argv[1])
while not result.ready():
    time.sleep(0.01)
print(result.state, result.get()["data"]["user"]["username"])
"""

FOLLOWING_PROGRAM = """
import json, sys
from llmchatlinker.client import LLMChatLinkerClient
for event in LLMChatLinkerClient().follow(sys.argv[1]):
    print(json.dumps(event.as_dict()), flush=True)
"""


@pytest.fixture(scope="module")
def local_model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    """The real LLM behind a real HTTP server."""
    fetch_model(print)
    model = LocalModel(tmp_path_factory.mktemp("model"))
    model.start()
    yield model
    model.stop()


@pytest.fixture
def two_workers(worker: StartWorker) -> list[ManagedProcess]:
    """One for generations, one for the rest: as a deployment has them."""
    return [worker("llm.generate"), worker(*[n for n in QUEUE_NAMES if n != "llm.generate"])]


def six_instructions(endpoint: str) -> list[str]:
    """The six of the contract, with the address of a provider that is there."""
    model = "meta-llama/Meta-Llama-3-8B-Instruct"
    names = {"provider_name": "vLLM", "llm_name": model}
    turn = {"user_id": 1, "chat_id": 1, "user_input": "Who won the world series in 2020?"}
    return [
        json.dumps({"type": type_name, "data": data})
        for type_name, data in [
            ("USER_CREATE", {"username": "john_doe", "profile": "Sample profile"}),
            ("CHAT_CREATE", {"title": "Sample Chat", "usernames": ["john_doe"]}),
            ("LLM_PROVIDER_ADD", {"name": "vLLM", "api_endpoint": endpoint}),
            ("LLM_ADD", names),
            ("LLM_RESPONSE_GENERATE", turn | names),
            ("LLM_RESPONSE_REGENERATE", {"message_id": 2}),
        ]
    ]


def test_the_six_instructions_succeed_in_order_with_a_real_llm(
    two_workers: list[ManagedProcess], local_model: LocalModel
) -> None:
    envelopes = [json.loads(publish_message(m)) for m in six_instructions(local_model.endpoint)]

    assert [envelope["status"] for envelope in envelopes] == ["success"] * 6
    first, second = (envelope["data"]["llm_response"] for envelope in envelopes[4:])
    assert first["message_id"] == 2
    assert first["usage"]["completion_tokens"] > 0
    assert first["content"].strip()
    assert second["parent_message_id"] == first["parent_message_id"] == 1


def a_turn_with(model: LocalModel, client: LLMChatLinkerClient) -> dict[str, Any]:
    """What a turn with the local model needs, less its question."""
    user_id = client.create_user("ada")["data"]["user"]["user_id"]
    chat_id = client.create_chat("talk", user_ids=[user_id])["data"]["chat"]["chat_id"]
    where = client.add_llm_provider("local", model.endpoint)["data"]["provider"]
    llm = client.add_llm(where["provider_id"], model.model)["data"]["llm"]
    return {"user_id": user_id, "chat_id": chat_id, "llm_id": llm["llm_id"]}


def test_a_real_llm_is_streamed_to_its_end(
    two_workers: list[ManagedProcess], local_model: LocalModel
) -> None:
    client = LLMChatLinkerClient()
    turn = a_turn_with(local_model, client)

    stream = client.stream(**turn, user_input="Say hello.", parameters={"max_tokens": 32})
    events = list(stream)

    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    answer = stream.result().get(timeout=60)["data"]["llm_response"]
    assert answer["content"] == stream.text == "".join(event.text for event in events) != ""
    assert 0 < answer["usage"]["completion_tokens"] <= 32
    assert "estimated" not in answer["usage"]


def test_a_real_llm_is_followed_from_another_process_and_cancelled(
    two_workers: list[ManagedProcess], local_model: LocalModel, tmp_path: Path
) -> None:
    client = LLMChatLinkerClient()
    turn = a_turn_with(local_model, client)
    story = {"max_tokens": 4000, "ignore_eos": True}  # minutes of it

    stream = client.stream(**turn, user_input="Tell me a long story.", parameters=story)
    with subprocess.Popen(
        [sys.executable, "-c", FOLLOWING_PROGRAM, stream.instruction_id],
        env=environment(get_settings()),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        seen = [json.loads(line) for _, line in zip(range(3), other.stdout, strict=False)]
        said = client.cancel(stream.instruction_id)
        events = [event.as_dict() for event in stream]
        seen += [json.loads(line) for line in other.stdout]

    assert other.returncode == 0
    assert said["message"] == "Response cancelled."
    assert seen == events
    assert events[-1]["type"] == "response.cancelled"
    answer = client.get_chat(turn["chat_id"])["data"]["chat"]["messages"][-1]
    assert (answer["content"], answer["status"]) == (stream.text, "cancelled")
    assert answer["usage"]["estimated"]
    (attempt,) = client.run("INSTRUCTION_GET", instruction_id=stream.instruction_id)["data"][
        "instruction"
    ]["attempts"]
    assert attempt["status"] == "cancelled"


def test_the_client_keeps_the_history_of_a_chat(
    two_workers: list[ManagedProcess], provider: ScriptedProvider
) -> None:
    client = LLMChatLinkerClient()
    user_id = client.create_user("ada")["data"]["user"]["user_id"]
    chat_id = client.create_chat("talk", user_ids=[user_id])["data"]["chat"]["chat_id"]
    where = client.add_llm_provider("scripted", provider.base_url)["data"]["provider"]
    llm_id = client.add_llm(where["provider_id"], "echo")["data"]["llm"]["llm_id"]

    for question in ("one", "two"):
        envelope = client.generate_llm_response(
            user_id, chat_id, where["provider_id"], llm_id, question
        )
        assert envelope["status"] == "success", envelope

    roles = [m["role"] for m in client.get_chat(chat_id)["data"]["chat"]["messages"]]
    assert roles == ["user", "assistant", "user", "assistant"]
    sent = [message["content"] for message in provider.requests[-1].body["messages"]]
    assert sent[0] == "one"
    assert sent[-1] == "two"


def test_another_process_polls_the_result_of_delay(
    two_workers: list[ManagedProcess], tmp_path: Path
) -> None:
    result = USER_CREATE.delay(username="polled")

    program = subprocess.run(
        [sys.executable, "-c", POLLING_PROGRAM, result.id],
        env=environment(get_settings()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert program.stdout.strip() == "SUCCESS polled"


def test_a_folder_with_workers_and_a_celeryconfig_of_its_own_shadows_nothing(
    worker: StartWorker, cycle: Cycle, tmp_path: Path
) -> None:
    (tmp_path / "celeryconfig.py").write_text("raise RuntimeError('the wrong celeryconfig')")
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise RuntimeError('the wrong workers')")
    worker()  # its working directory is tmp_path

    program = subprocess.run(
        [sys.executable, "-m", "llmchatlinker", "send", "USER_CREATE", "username=ada"],
        env=environment(get_settings()),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert program.returncode == 0, program.stderr
    assert json.loads(program.stdout)["data"]["user"]["username"] == "ada"


def test_inspect_registered_lists_every_instruction_type(
    two_workers: list[ManagedProcess],
) -> None:
    replies = app.control.inspect(timeout=10, limit=len(two_workers)).registered()

    names = {name for tasks in replies.values() for name in tasks}
    assert {spec.task_name for spec in INSTRUCTION_SET.values()} <= names
    assert "llmchatlinker.control.decode" in names
    assert not {name for name in names if "records_list" in name}, ALIASES


def test_a_worker_that_is_killed_in_mid_call_leaves_an_answer_that_says_so(
    worker: StartWorker, provider: ScriptedProvider, cycle: Cycle
) -> None:
    worker(*[n for n in QUEUE_NAMES if n != "llm.generate"], sweep_interval=0.2, sweep_grace=0.5)
    doomed = worker("llm.generate", lease=1.0)
    client = LLMChatLinkerClient()
    user_id = client.create_user("ada")["data"]["user"]["user_id"]
    chat_id = client.create_chat("talk", user_ids=[user_id])["data"]["chat"]["chat_id"]
    where = client.add_llm_provider("scripted", provider.base_url)["data"]["provider"]
    llm_id = client.add_llm(where["provider_id"], "echo")["data"]["llm"]["llm_id"]
    provider.script(after(60.0, echo))
    result = client.submit(
        "LLM_RESPONSE_GENERATE",
        user_id=user_id,
        chat_id=chat_id,
        llm_id=llm_id,
        user_input="hello",
    )
    provider.wait_for_calls(1)
    assert doomed.pid is not None
    os.kill(doomed.pid, 9)
    worker("llm.generate", lease=1.0)

    envelope = result.get(timeout=60)

    assert envelope["error"]["code"] == "in_doubt"
    assert len(provider.calls) == 1
    assert cycle.count("messages", "status = 'in_doubt'") == 1
    assert cycle.count("messages", "status = 'generating'") == 0
    assert cycle.count("attempts", "status = 'in_doubt'") == 1


def test_main_migrates_and_runs_an_orchestrator_for_all_queues(
    cycle: Cycle, tmp_path: Path
) -> None:
    cycle.sql("DROP SCHEMA public CASCADE")
    cycle.sql("CREATE SCHEMA public")
    process = ManagedProcess(
        "main",
        [sys.executable, "-m", "llmchatlinker.main"],
        environment(get_settings(), concurrency=4),
        tmp_path / "main.log",
        cwd=tmp_path,
    )
    process.start()
    try:
        wait_until(lambda: process.log_text().count(" ready.") == 2, 60, process)
        envelope = json.loads(publish_message('{"type": "USER_LIST", "data": {}}'))
        assert envelope["status"] == "success"
        assert re.search(r"Migrations applied: 0001", process.log_text())
    finally:
        process.stop(30)
    assert process.poll() == 0


def test_a_worker_ends_within_seconds_of_a_sigterm(worker: StartWorker) -> None:
    process = worker()
    started = time.monotonic()

    process.stop(30)

    assert process.poll() == 0
    assert time.monotonic() - started < 30
