"""The real command, as processes of its own, against a system that runs."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import QUEUE_NAMES
from tests.fixtures.commands import COMMAND, LONG, Run
from tests.fixtures.workers import StartWorker, environment
from tests.servers.provider import ScriptedProvider
from tests.servers.scripts import slow


def test_people_chat_send_watch_get_and_list(
    command: Run, worker: StartWorker, provider: ScriptedProvider
) -> None:
    worker()
    place = ("--user", "ada", "--endpoint", provider.base_url, "--model", "echo")
    said = command("chat", *place, "--title", "Engines", input="hello\n").stdout
    assert "echo> You said: hello" in said

    ids = json.loads(command("users", "--output", "json").stdout)["users"]
    assert [user["username"] for user in ids] == ["ada"]
    assert "1        Engines  ada    enqueue" in command("chats").stdout

    turn = {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "again"}
    instruction = json.dumps({"type": "LLM_RESPONSE_GENERATE", "data": turn})
    found = command("send", "--json", "-", "--no-wait", input=instruction).stdout.strip()
    assert command("watch", found).stdout == "echo> You said: again\n"
    lines = command("--output", "json", "watch", found, "--after", "1").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["sequence_number"] for event in events] == list(range(2, len(events) + 2))
    assert events[-1]["type"] == "response.completed"
    envelope = json.loads(command("get", found).stdout)
    assert envelope["data"]["llm_response"]["content"] == "You said: again"

    refused = command("send", "USER_CREATE", "username=ada", code=1)
    assert json.loads(refused.stdout)["error"]["code"] == "conflict"


def test_a_watcher_leaves_by_ctrl_c_and_the_generation_goes_on(
    command: Run, worker: StartWorker, provider: ScriptedProvider, tmp_path: Path
) -> None:
    worker()
    client = LLMChatLinkerClient()
    client.create_user("ada")
    client.create_chat("Engines", user_ids=[1])
    client.add_llm_provider("scripted", provider.base_url)
    client.add_llm(1, "echo")
    provider.script(slow(5_000, 20))
    result = client.submit(
        "LLM_RESPONSE_GENERATE", user_id=1, chat_id=1, llm_id=1, user_input="count"
    )

    watching = subprocess.Popen(
        [*COMMAND, "watch", result.id],
        env=environment(get_settings()),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert watching.stdout is not None
        assert watching.stdout.read(1)  # something of it has come
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=LONG)
    finally:
        watching.kill()
        watching.communicate()
    assert watching.returncode == 130
    assert f"LLM_RESPONSE_CANCEL instruction_id={result.id}" in said.decode()
    assert b"Traceback" not in said
    assert "Error (result_timeout)" in command("get", result.id, code=4).stderr

    command("send", "LLM_RESPONSE_CANCEL", f"instruction_id={result.id}")
    assert result.get(timeout=LONG)["error"]["code"] == "cancelled"
    assert "(stopped)" in command("watch", result.id, code=1).stdout


def test_operators_look_mend_export_and_erase(
    command: Run, worker: StartWorker, provider: ScriptedProvider, tmp_path: Path
) -> None:
    worker()
    client = LLMChatLinkerClient()
    client.create_user("ada", profile="Likes numbers.")
    client.create_chat("Engines", user_ids=[1])
    client.add_llm_provider("scripted", provider.base_url, api_key="sk-very-secret")

    status = json.loads(command("status", "--output", "json").stdout)
    assert status["problems"] == []
    assert [queue["name"] for queue in status["queues"]] == [*QUEUE_NAMES, "dead_letters"]
    assert {queue["consumers"] for queue in status["queues"][:-1]} == {1}
    (found,) = status["workers"]
    assert (sorted(found["queues"]), found["slots"]) == (sorted(QUEUE_NAMES), 8)
    assert status["under_way"]["finished_last_minute"] >= 3

    assert "1 API key(s) encrypted anew." in command("keys", "rotate").stdout
    health = json.loads(command("doctor", "--output", "json").stdout)
    states = {check["name"]: check["state"] for check in health["checks"]}
    assert states.pop("policies") == "warn"  # nothing says so over AMQP
    assert set(states.values()) == {"ok"}, health
    assert {"broker", "queues", "workers", "clocks", "provider scripted"} <= set(states)

    client.add_llm_provider("gone", "http://127.0.0.1:1/v1")
    ill = command("doctor", code=1)
    assert "fail  provider gone" in ill.stdout
    assert "What to do: Check that it runs at http://127.0.0.1:1/v1" in ill.stdout
    assert "sk-very-secret" not in ill.stdout + ill.stderr

    command("export", "ada", "--file", "ada.json")
    exported = tmp_path / "here" / "ada.json"
    assert exported.stat().st_mode & 0o777 == 0o600
    assert json.loads(exported.read_text())["user"]["profile"] == "Likes numbers."
    assert "users" in command("erase", "ada", "--yes").stdout
    assert command("users").stdout == "There are no users.\n"
    assert json.loads(command("dead-letters", "list", "--output", "json").stdout) == []


def test_servers_that_are_gone_are_said_in_one_line_with_an_exit_code(command: Run) -> None:
    nowhere = {"database_url": "postgresql://eve:secret@127.0.0.1:1/none", "client_patience": 0.5}
    users = command("users", code=3, settings=nowhere)
    assert users.stderr.startswith(
        "Error (unavailable): PostgreSQL at postgresql://eve@127.0.0.1:1"
    )
    assert len(users.stderr.splitlines()) == 1

    no_broker = {"broker_url": "amqp://eve:secret@127.0.0.1:1//", "client_patience": 0.5}
    status = command("status", code=3, settings=no_broker)
    assert "PostgreSQL: " in status.stdout
    assert "The broker at amqp://eve@127.0.0.1:1// does not answer" in status.stdout
    ill = command("doctor", "--no-providers", code=1, settings=no_broker)
    assert "fail  broker" in ill.stdout
    assert "secret" not in status.stdout + ill.stdout.replace("secret keys", "")
