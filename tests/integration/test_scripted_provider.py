"""The provider of our own: that it is a server one can lean on."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import requests

from llmchatlinker.celery_app import ROOT
from llmchatlinker.embedded.processes import free_port
from tests.fixtures.threads import at_once, eventually
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider

QUESTION = {"model": "echo", "messages": [{"role": "user", "content": "Hello"}]}


def ask(base_url: str) -> requests.Response:
    return requests.post(f"{base_url}/chat/completions", json=QUESTION, timeout=30)


def answers(base_url: str) -> bool:
    try:
        return ask(base_url).ok
    except requests.RequestException:
        return False


def test_a_hundred_may_ask_at_once(provider: ScriptedProvider) -> None:
    gate = scripts.Gate()
    provider.otherwise = gate
    opener = threading.Thread(target=lambda: (provider.wait_for_calls(100), gate.open()))
    opener.start()

    responses = at_once([lambda: ask(provider.base_url)] * 100)

    opener.join()
    assert {response.status_code for response in responses} == {200}
    assert len(provider.calls) == 100


def test_scripts_are_taken_in_order_and_then_it_echoes(provider: ScriptedProvider) -> None:
    provider.script(scripts.answer("first"), scripts.error(503))

    found = [ask(provider.base_url) for _ in range(3)]

    assert [response.status_code for response in found] == [200, 503, 200]
    texts = [r.json()["choices"][0]["message"]["content"] for r in found if r.ok]
    assert texts == ["first", "You said: Hello"]


def test_it_stops_whatever_its_scripts_are_at() -> None:
    provider = ScriptedProvider()
    provider.start()
    provider.script(scripts.Gate(), scripts.drip(0.05), scripts.endless)
    clients = [threading.Thread(target=answers, args=[provider.base_url]) for _ in range(2)]
    for client in clients:
        client.start()
    provider.wait_for_calls(2)

    provider.stop()

    for client in clients:
        client.join(60)
        assert not client.is_alive()


@pytest.mark.parametrize("path", ["/v1/nothing", "/"])
def test_another_path_is_not_found(provider: ScriptedProvider, path: str) -> None:
    address = provider.base_url.removesuffix("/v1") + path

    assert requests.get(address, timeout=30).status_code == 404


def test_it_runs_by_hand() -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.servers.provider", "--port", str(port), "--model", "m"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    ) as process:
        try:
            eventually(lambda: answers(f"http://127.0.0.1:{port}/v1"))
            models = requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=30).json()
        finally:
            process.terminate()

    assert [model["id"] for model in models["data"]] == ["m"]
