"""`make run` and `llmchatlinker up`, as a newcomer meets them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.celery_app import ROOT
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from tests.servers.provider import ScriptedProvider

psutil: Any = importlib.import_module("psutil")  # by name, since it has no types

COMMAND = [sys.executable, "-m", "llmchatlinker"]
LONG = 300.0  # seconds; half a minute is usual


@pytest.fixture
def home() -> Iterator[dict[str, str]]:
    """An environment with a data folder of its own, which PostgreSQL's user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-home-"))
    directory.chmod(0o711)
    yield {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory),
        "LLMCHATLINKER_DATA_DIR": str(directory / "data"),
    }
    shutil.rmtree(directory)


def run(home: dict[str, str], *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """The command line, without a terminal."""
    return subprocess.run(
        [*COMMAND, *arguments],
        env=home | extra,
        cwd=home["HOME"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG,
        check=False,
    )


def left_over(home: dict[str, str]) -> list[str]:
    """Processes that know the data folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        about = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(home["LLMCHATLINKER_DATA_DIR"] in word for word in about):
            found.append(" ".join(about))
    return found


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a quickstart that went well says last."""
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_the_quickstart_shows_a_real_llm_at_work_and_leaves_no_process(
    home: dict[str, str],
) -> None:
    line = last_line(run(home, "run"))

    assert line.startswith("quickstart ok: 6 of 6 instructions, ")
    assert int(line.split()[-3]) > 0
    assert left_over(home) == []


def test_the_quickstart_runs_again_with_an_llm_of_ones_own(
    home: dict[str, str], provider: ScriptedProvider
) -> None:
    own = {"ENDPOINT": provider.base_url, "MODEL": "echo", "API_KEY": "sk-very-secret"}

    for _ in range(2):
        done = run(home, "run", **own)

        assert last_line(done).startswith("quickstart ok: 6 of 6 instructions, ")
        assert "sk-very-secret" not in done.stdout + done.stderr
    assert len(provider.calls) == 4
    assert provider.requests[-1].headers["authorization"] == "Bearer sk-very-secret"


def test_a_provider_that_is_down_fails_the_quickstart_with_the_step_and_a_remedy(
    home: dict[str, str],
) -> None:
    done = run(home, "run", ENDPOINT="http://127.0.0.1:1/v1", MODEL="none")

    assert done.returncode == 1
    assert "Step 5 of 6, LLM_RESPONSE_GENERATE, failed (provider_error)" in done.stderr
    assert "What to do: Check that http://127.0.0.1:1/v1" in done.stderr
    assert "Traceback" not in done.stderr
    assert left_over(home) == []


def test_up_serves_other_programs_until_it_is_told_to_stop(home: dict[str, str]) -> None:
    directory = Path(home["HOME"])
    up = ManagedProcess(
        "up", [*COMMAND, "up", "--no-model"], home, directory / "up.log", cwd=directory
    )
    assert "No embedded system is running" in run(home, "env").stderr
    up.start()
    try:
        wait_until(lambda: run(home, "env").returncode == 0, LONG, up)
        settings = json.loads(run(home, "env", "--json").stdout)
        sent = run(home, "send", "USER_CREATE", "username=ada", **settings)
        assert sent.returncode == 0, sent.stdout + sent.stderr
        assert "already runs in" in run(home, "reset", "--yes").stderr
        assert up.pid is not None
        os.kill(up.pid, signal.SIGINT)
        assert up.wait(60) == 0, up.log_tail()
    finally:
        up.stop()
    assert left_over(home) == []


def test_a_second_ctrl_c_hands_a_call_back_at_once(
    home: dict[str, str], provider: ScriptedProvider
) -> None:
    """What was handed back is no attempt in doubt: it is made anew when the system is up again."""
    provider.script(lambda exchange: exchange.pause(LONG))
    directory = Path(home["HOME"])
    up = ManagedProcess(
        "up", [*COMMAND, "up", "--no-model"], home, directory / "up.log", cwd=directory
    )
    up.start()
    try:
        settings = ready(home, up)
        for instruction in (
            ("USER_CREATE", "username=ada"),
            ("CHAT_CREATE", "title=Engines", "user_ids=[1]"),
            ("LLM_PROVIDER_ADD", "name=scripted", f"api_endpoint={provider.base_url}"),
            ("LLM_ADD", "provider_id=1", "llm_name=echo"),
        ):
            sent = run(home, "send", *instruction, **settings)
            assert sent.returncode == 0, sent.stdout + sent.stderr
        turn = ("user_id=1", "chat_id=1", "llm_id=1", "user_input=Hello")
        submitted = run(home, "send", "LLM_RESPONSE_GENERATE", *turn, "--no-wait", **settings)
        provider.wait_for_calls(1)
        assert up.pid is not None
        os.kill(up.pid, signal.SIGINT)
        wait_until(lambda: "stopping everything" in up.log_text(), LONG, up)
        os.kill(up.pid, signal.SIGINT)
        assert up.wait(60) == 0, up.log_tail()

        up.start()
        settings = ready(home, up)
        provider.wait_for_calls(2)
        asked = ("INSTRUCTION_GET", f"instruction_id={submitted.stdout.strip()}")
        found = json.loads(run(home, "send", *asked, "--output", "json", **settings).stdout)
        attempts = found["data"]["instruction"]["attempts"]
        assert [attempt["status"] for attempt in attempts][:1] == ["cancelled"]
    finally:
        up.stop(60)


def ready(home: dict[str, str], up: ManagedProcess) -> dict[str, str]:
    """The settings of a system that comes up."""
    wait_until(lambda: run(home, "env").returncode == 0, LONG, up)
    settings: dict[str, str] = json.loads(run(home, "env", "--json").stdout)
    return settings


def test_lasting_data_goes_only_when_reset_is_told_to(home: dict[str, str]) -> None:
    assert "nothing to remove" in run(home, "reset").stdout
    data = Path(home["LLMCHATLINKER_DATA_DIR"])
    (data / "postgres").mkdir(parents=True)

    asked = run(home, "reset")
    assert asked.returncode == 1
    assert (data / "postgres").exists()

    run(home, "reset", "--yes")
    assert not (data / "postgres").exists()
