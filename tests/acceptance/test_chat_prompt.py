"""The chat prompt of `make run`, on a terminal: typed to as a person does, under a real `make`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmchatlinker.celery_app import ROOT
from tests.fixtures.terminals import Terminal
from tests.servers import scripts
from tests.servers.provider import Exchange, ScriptedProvider
from tests.servers.shapes import openai_chunk

LONG = 300.0  # seconds; half a minute is usual
#: As the project's own: make would die of a second Ctrl-C, and leave the prompt without a terminal.
MAKEFILE = f"run:\n\t@{sys.executable} -m llmchatlinker run\n"
#: Seconds; nobody presses sooner. Python's readline does not notice a signal that comes between its
#: drawing of the prompt and its waiting for a key (CPython, ``Modules/readline.c``).
REACTION = 1.5
#: At the beginning of a line, unlike in what is shown of a chat, where it is bold.
PROMPT = "\nyou> "


@dataclass(frozen=True)
class Session:
    """A prompt that waits for a line, and the LLM behind it."""

    terminal: Terminal
    provider: ScriptedProvider

    def ask(self, line: str) -> str:
        """What comes before the next prompt, without colours."""
        self.terminal.line(line)
        self.terminal.expect("\n")  # the echo of what was typed
        return self.rest()

    def rest(self) -> str:
        """The same of what is under way."""
        found = self.terminal.expect(PROMPT)
        return re.sub(r"\x1b\[[0-9;?]*[a-z]", "", found).replace("\r", "")


def environment(directory: Path, provider: ScriptedProvider) -> dict[str, str]:
    """A system of its own, with the scripted provider's LLM."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "PYTHONPATH": str(ROOT),
        "HOME": str(directory),
        "TERM": "xterm",
        "INPUTRC": str(directory / "inputrc"),
        "LC_ALL": "C.UTF-8",
        "LLMCHATLINKER_DATA_DIR": str(directory / "data"),
        "ENDPOINT": provider.base_url,
        "MODEL": "echo",
    }


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    found = Path(tempfile.mkdtemp(prefix="llmchatlinker-home-"))
    found.chmod(0o711)  # for PostgreSQL's user
    yield found
    shutil.rmtree(found)


@pytest.fixture(scope="module")
def started(directory: Path) -> Iterator[Session]:
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "inputrc").write_text("set enable-bracketed-paste off\n")
    make = shutil.which("make")
    assert make is not None
    with ScriptedProvider() as provider:
        terminal = Terminal([make, "run"], environment(directory, provider), str(directory))
        try:
            terminal.expect(PROMPT, LONG)
            yield Session(terminal, provider)
            terminal.control("d")
            assert terminal.wait() == 0
        finally:
            terminal.close()


@pytest.fixture
def session(started: Session) -> Session:
    """The one prompt of this module, with a new chat."""
    started.ask("/new")
    return started


def test_an_answer_is_seen_while_it_is_written(session: Session) -> None:
    seen = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.write(openai_chunk({"content": "the first words"}))
        while not seen.wait(0.01):
            exchange.pause(0)
        exchange.write(openai_chunk({"content": ", the last"}, "stop"))
        exchange.end_stream()

    session.provider.script(script)
    session.terminal.line("Speak.")
    session.terminal.expect("the first words")
    seen.set()
    assert session.rest().startswith(", the last")


def test_ctrl_c_stops_an_answer_and_the_prompt_goes_on(session: Session) -> None:
    session.provider.script(scripts.slow(10_000, 20))
    left = session.provider.left

    session.terminal.line("Count.")
    session.terminal.expect("3 4 5")
    pressed = time.monotonic()
    session.terminal.control("c")

    assert "(stopped)" in session.rest()
    assert session.provider.wait_for_leaving(left + 1) - pressed < 60
    assert "You said: Hello" in session.ask("Hello")


def test_ctrl_c_at_the_prompt_says_how_to_leave(session: Session) -> None:
    for _ in range(2):
        time.sleep(REACTION)
        session.terminal.control("c")
        assert "Ctrl-D or /quit leaves" in session.rest()


def test_regenerating_and_editing_make_branches_to_go_back_to(session: Session) -> None:
    session.provider.script(*(scripts.answer(f"answer {n}") for n in (1, 2, 3)))
    session.ask("What?")
    session.ask("/regenerate")
    session.ask("/edit Why?")

    shown = session.ask("/branches")
    assert [line.rstrip() for line in shown.splitlines() if "answer" in line][:-1] == [
        "   1    answer 1",
        "   2    answer 2",
        "*  3    answer 3",
    ]

    assert "answer 1" in session.ask("/branches 1")
    assert "*  1    answer 1" in session.ask("/branches")
    session.ask("And now?")
    sent = [message["content"] for message in session.provider.calls[-1].body["messages"]]
    assert sent == ["What?", "answer 1", "And now?"]


def test_edit_offers_the_question_for_editing(session: Session) -> None:
    session.ask("Where is it")
    session.terminal.line("/edit")
    session.terminal.expect(PROMPT)

    assert "You said: Where is it now?" in session.ask(" now?")


def test_a_chat_of_before_can_be_gone_on_with(session: Session) -> None:
    session.ask("Remember the lighthouse.")
    listed = session.ask("/chats")
    found = re.search(r"\* +(\d+) .*Remember the lighthouse", listed)
    assert found is not None
    session.ask("/new Another")

    assert "You said: Remember the lighthouse." in session.ask(f"/chats {found[1]}")
    session.ask("What did I say?")
    sent = [message["content"] for message in session.provider.calls[-1].body["messages"]]
    assert sent[0] == "Remember the lighthouse."


def test_a_system_prompt_is_sent_along(session: Session) -> None:
    session.ask("/system Be brief.")
    session.ask("Hello")

    assert session.provider.calls[-1].body["messages"][0] == {
        "role": "system",
        "content": "Be brief.",
    }
    assert "Be brief." in session.ask("/system")


def test_a_line_that_ends_with_a_backslash_goes_on(session: Session) -> None:
    session.terminal.line("one\\")
    session.terminal.expect("...> ")
    session.ask("two")

    assert session.provider.calls[-1].question == "one\ntwo"


def test_what_a_model_says_does_not_steer_the_terminal(session: Session) -> None:
    session.provider.script(scripts.answer("a\x1b]0;owned\x07b"))
    session.ask("Hello")

    assert b"\x1b]0;owned" not in session.terminal.seen
    assert b"a]0;ownedb" in session.terminal.seen


def test_an_error_is_one_line_and_the_prompt_goes_on(session: Session) -> None:
    session.provider.script(scripts.error(400, "no such model"))

    assert "/model takes another LLM." in session.ask("Hello")
    assert "You said: Hello" in session.ask("/regenerate")


def test_without_a_terminal_each_line_that_is_piped_in_is_a_question() -> None:
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-home-"))
    directory.chmod(0o711)
    try:
        with ScriptedProvider() as provider:
            done = subprocess.run(
                [sys.executable, "-m", "llmchatlinker", "run"],
                env=environment(directory, provider),
                cwd=directory,
                input="Hello\n/nothing\nGood bye\n",
                capture_output=True,
                text=True,
                timeout=LONG,
                check=False,
            )
    finally:
        shutil.rmtree(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo> You said: Hello\n" in done.stdout
    assert "There is no command /nothing." in done.stdout
    assert "echo> You said: Good bye\n" in done.stdout
    assert done.stdout.strip().splitlines()[-1].startswith("quickstart ok: 6 of 6 instructions, ")
