"""The chat prompt, on a client that answers from a script with the real events."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from llmchatlinker.embedded.prompt import commands, reading
from llmchatlinker.embedded.prompt.answering import Answering
from llmchatlinker.embedded.prompt.branches import Tree
from llmchatlinker.embedded.prompt.places import Place
from llmchatlinker.embedded.prompt.prompt import Prompt
from llmchatlinker.embedded.prompt.screen import Screen, clean, in_a_line
from llmchatlinker.envelope import success
from llmchatlinker.errors import ProviderError, Unavailable
from llmchatlinker.streaming.follower import ResponseEvent

Step = ResponseEvent | BaseException | Callable[[], None]
Script = Sequence[Step] | BaseException


# --- a client that answers from a script ----------------------------------------------------------


def events(*found: tuple[str, dict[str, Any]], first: int = 1) -> list[ResponseEvent]:
    """Events, numbered."""
    return [ResponseEvent(n, f"response.{t}", d) for n, (t, d) in enumerate(found, start=first)]


CREATED = ("created", {"message_id": 2, "parent_message_id": 1, "llm_name": "echo"})
COMPLETED = ("completed", {"message_id": 2, "status": "complete", "finish_reason": "stop"})


def said(text: str, kind: str = "text") -> tuple[str, dict[str, Any]]:
    return ("delta", {"kind": kind, "text": text})


class FakeStream:
    """Yields events; raises what is raised, and calls what can be called."""

    instruction_id = "the-id"

    def __init__(self, steps: Sequence[Step]) -> None:
        self._steps = steps

    def __iter__(self) -> Iterator[ResponseEvent]:
        for step in self._steps:
            if isinstance(step, ResponseEvent):
                yield step
            elif isinstance(step, BaseException):
                raise step
            else:
                step()


class FakeClient:
    """Keeps what it was asked. ``streams``: what ``stream`` and then ``follow`` give."""

    def __init__(self, *streams: Script) -> None:
        self.streams: list[Script] = list(streams)
        self.asked: list[dict[str, Any]] = []
        self.followed: list[int] = []
        self.updated: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.cancelled = threading.Event()

    def stream(self, **asked: Any) -> FakeStream:
        self.asked.append({key: value for key, value in asked.items() if value is not None})
        return self._next()

    def follow(self, instruction_id: str, *, starting_after: int = 0) -> FakeStream:
        self.followed.append(starting_after)
        return self._next()

    def _next(self) -> FakeStream:
        steps = self.streams.pop(0)
        if isinstance(steps, BaseException):
            raise steps
        return FakeStream(steps)

    def cancel(self, instruction_id: str) -> None:
        assert instruction_id == "the-id"
        self.cancelled.set()

    def create_chat(self, title: str, **more: Any) -> Any:
        self.title = title
        return success("x", {"chat": {"chat_id": 7}})

    def update_chat(self, chat_id: int, **changes: Any) -> Any:
        self.updated.append(changes)
        return success("x", {"chat": {"chat_id": chat_id}})

    def get_chat(self, chat_id: int, **more: Any) -> Any:
        chat = {"title": "T", "system_prompt": None, "messages": self.messages}
        return success("x", {"chat": chat})


class FakeLines:
    """Lines as they were typed; an exception is a key."""

    def __init__(self, *lines: str | BaseException, interactive: bool = True) -> None:
        self.interactive = interactive
        self.offered: list[str] = []
        self._lines = list(lines)

    def read(self, offered: str = "") -> str:
        self.offered.append(offered)
        line = self._lines.pop(0) if self._lines else EOFError()
        if isinstance(line, BaseException):
            raise line
        return line


def written(client: Any, lines: FakeLines, *, terminal: bool = False) -> str:
    """What a prompt writes for these lines."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, highlight=False, soft_wrap=True)
    Prompt(Screen(console), lines, client, Place(1, 3, "echo")).run()
    return output.getvalue()


def answered(*steps: Step, then: Sequence[Script] = ()) -> tuple[str, FakeClient]:
    """What one answer looks like."""
    client = FakeClient(steps, *then)
    output = io.StringIO()
    screen = Screen(Console(file=output, highlight=False, soft_wrap=True))
    Answering(client, screen, pause=0).show(lambda: client.stream())
    return output.getvalue(), client


# --- lines and commands ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("Hello", None),
        (" /etc is a question", None),
        ("/new", ("/new", "")),
        ("/new  My chat ", ("/new", "My chat")),
        ("/edit two\nlines", ("/edit", "two\nlines")),
    ],
)
def test_a_line_is_a_command_only_with_a_slash_in_front(line: str, parsed: Any) -> None:
    assert commands.parse(line) == parsed


@pytest.mark.parametrize(
    ("name", "meant"), [("/regen", "/regenerate"), ("/branch", "/branches"), ("/chat", "/chats")]
)
def test_an_unknown_command_suggests_a_known_one(name: str, meant: str) -> None:
    assert f"Did you mean {meant}?" in commands.unknown(name)


def test_an_unknown_command_that_is_like_no_other_suggests_none() -> None:
    assert commands.unknown("/xyz") == "There is no command /xyz. /help shows them."


def test_every_command_of_the_help_is_obeyed() -> None:
    lines = FakeLines(*(name for name in commands.NAMES if name not in ("/chats", "/model")))
    assert "There is no command" not in written(FakeClient(), lines)


# --- what reaches the terminal --------------------------------------------------------------------


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    shown = clean(text)
    assert all(c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f") for c in shown)
    shown.encode("utf-8")


def test_what_is_no_control_character_stays_as_it_is() -> None:
    assert clean("Grüße,\n\t世界 🎉") == "Grüße,\n\t世界 🎉"


def test_escape_sequences_of_a_model_do_nothing_even_in_pieces() -> None:
    shown, _ = answered(
        *events(CREATED, said("a\x1b"), said("]0;title\x07b"), said("\x9b2Jc\r"), COMPLETED)
    )
    assert shown == "echo> a]0;titleb2Jc\n"


def test_a_text_in_a_line_is_cut_where_it_is_too_long() -> None:
    assert in_a_line("one\n two  three", 8) == "one two…"


def test_reasoning_is_dim_and_the_answer_is_not() -> None:
    steps = events(CREATED, said("Hmm.", "reasoning"), said("Yes."), COMPLETED)
    shown = written(FakeClient(steps), FakeLines("Really?"), terminal=True)
    assert "\x1b[2mHmm.\x1b[0m\nYes.\n" in shown


def test_a_tool_call_is_shown_with_its_name() -> None:
    call = {"kind": "tool_call", "index": 0, "id": "c1", "name": "f", "text": '{"a": '}
    more = {"kind": "tool_call", "index": 0, "text": "1}"}
    shown, _ = answered(*events(CREATED, ("delta", call), ("delta", more), COMPLETED))
    assert shown == 'echo> calls f {"a": 1}\n'


# --- how answers end ------------------------------------------------------------------------------


def test_an_error_is_one_line_with_a_remedy_and_the_prompt_goes_on() -> None:
    error = {"message": "The provider\nis down.", "code": "provider_error", "details": {}}
    failed = events(CREATED, ("failed", {"error": error}))
    client = FakeClient(failed, events(CREATED, said("Now."), COMPLETED))

    shown = written(client, FakeLines("one", "/regenerate"))

    assert "\nThe provider is down. See that its provider runs, then /regenerate; /model" in shown
    assert "echo> Now.\n" in shown
    assert client.asked[1] == {"message_id": 1, "user_id": 1, "llm_id": 3}


def test_what_can_not_be_submitted_is_one_line_too() -> None:
    shown = written(FakeClient(Unavailable("No broker.")), FakeLines("one", "/regenerate"))

    assert "No broker.\n" in shown
    assert "There is no question here yet" in shown


def test_a_failed_question_that_never_began_is_not_mistaken_for_the_one_before() -> None:
    refused = {"message": "Too long.", "code": "invalid_data", "details": {}}
    client = FakeClient(events(CREATED, COMPLETED), events(("failed", {"error": refused})))

    shown = written(client, FakeLines("one", "two", "/regenerate"))

    assert "There is no question here yet" in shown
    assert len(client.asked) == 2


def test_a_lost_stream_is_followed_from_the_last_number() -> None:
    shown, client = answered(
        *events(CREATED, said("one ")),
        Unavailable("gone"),
        then=[Unavailable("still gone"), events(said("two"), COMPLETED, first=3)],
    )
    assert client.followed == [2, 2]
    assert shown == "echo> one \n(the connection was lost; looking for the rest)\ntwo\n"


def test_of_a_snapshot_only_what_is_new_is_shown() -> None:
    snapshot = ("snapshot", {**CREATED[1], "text": "one two", "reasoning": None})
    shown, _ = answered(
        *events(CREATED, said("one ")),
        Unavailable("gone"),
        then=[events(snapshot, COMPLETED, first=5)],
    )
    assert shown.endswith("\ntwo\n")


def test_another_error_in_the_midst_of_an_answer_is_not_waited_out() -> None:
    with pytest.raises(ProviderError):
        answered(*events(CREATED), ProviderError("no"))


# --- Ctrl-C ---------------------------------------------------------------------------------------


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def stopped_by(client: FakeClient) -> list[Step]:
    """An answer during which somebody presses Ctrl-C once."""

    def cancelled() -> None:
        assert client.cancelled.wait(10)

    cancelled_event = ("cancelled", {"error": {"details": {"reason": "cancelled"}}})
    return [
        *events(CREATED, said("half ")),
        press,
        cancelled,
        *events(cancelled_event, first=3),
    ]


def test_ctrl_c_cancels_the_answer_and_the_prompt_goes_on() -> None:
    client = FakeClient()
    client.streams = [stopped_by(client), events(CREATED, said("more"), COMPLETED)]

    shown = written(client, FakeLines("one", "two"))

    assert "echo> half \n(stopped)\n" in shown
    assert "echo> more\n" in shown


def test_a_second_ctrl_c_waits_no_longer() -> None:
    client = FakeClient()
    client.streams = [[*events(CREATED), press, press], events(CREATED, said("more"), COMPLETED)]

    shown = written(client, FakeLines("one", "two"))

    assert "(not waiting any longer)" in shown
    assert "echo> more\n" in shown


def test_after_an_answer_ctrl_c_is_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGINT)
    answered(*events(CREATED, COMPLETED))
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_at_the_prompt_says_how_to_leave() -> None:
    assert "Ctrl-D or /quit leaves" in written(FakeClient(), FakeLines(KeyboardInterrupt()))


def test_ctrl_c_where_nobody_sits_there_ends_it_all() -> None:
    client = FakeClient()
    client.streams = [stopped_by(client)]
    with pytest.raises(KeyboardInterrupt):
        written(client, FakeLines("one", "two", interactive=False))


# --- editing and branches -------------------------------------------------------------------------


def test_edit_offers_the_last_question_and_asks_beside_it() -> None:
    done = events(CREATED, COMPLETED)
    client = FakeClient(done, done)
    lines = FakeLines("What?", "/edit", "What now?")

    written(client, lines)

    assert lines.offered == ["", "", "What?", ""]
    assert client.asked[1]["parent_message_id"] == 1
    assert client.asked[1]["user_input"] == "What now?"


def test_an_edit_that_is_left_asks_nothing_beside() -> None:
    done = events(CREATED, COMPLETED)
    client = FakeClient(done, done)

    written(client, FakeLines("What?", "/edit", KeyboardInterrupt(), "Next?"))

    assert "parent_message_id" not in client.asked[1]


def test_edit_with_a_text_asks_at_once() -> None:
    done = events(CREATED, COMPLETED)
    client = FakeClient(done, done)

    written(client, FakeLines("What?", "/edit Why?"))

    assert (client.asked[1]["user_input"], client.asked[1]["parent_message_id"]) == ("Why?", 1)


def message(number: int, parent: int | None, content: str, *, active: bool = False) -> Any:
    role = "user" if content.endswith("?") else "assistant"
    keys = ("message_id", "parent_message_id", "role", "content", "status", "active", "llm_name")
    return dict(zip(keys, (number, parent, role, content, "complete", active, "echo"), strict=True))


#: Q1 was asked twice; below the first one's second answer the chat went on.
TREE = [
    message(1, None, "Q1?", active=True),
    message(2, 1, "A1"),
    message(3, 1, "A1 again", active=True),
    message(4, None, "Q1 edited?"),
    message(5, 4, "A1 edited"),
    message(6, 3, "Q2?", active=True),
    message(7, 6, "A2", active=True),
    message(8, 5, "Q3?"),
    message(9, 8, "A3"),
    message(10, 8, "A3 again"),
]


def test_branches_shows_the_forks_and_marks_the_active_one() -> None:
    assert list(Tree(TREE).lines()) == [
        "     Q1?",
        "   1    A1",
        "*  2    A1 again",
        "     Q1 edited?",
        "   3    A1 edited",
        "     Q2?",
        "*  4    A2",
    ]


def test_a_branch_leads_to_the_newest_answer_below_it() -> None:
    assert [branch.end for branch in Tree(TREE).branches()] == [2, 7, 10, 7]


def test_branches_with_a_number_switches() -> None:
    client = FakeClient(events(CREATED, COMPLETED))
    client.messages = TREE

    written(client, FakeLines("Q?", "/branches 3"))

    assert client.updated == [{"active_message_id": 10}]


def test_branches_refuses_a_number_that_there_is_not() -> None:
    client = FakeClient(events(CREATED, COMPLETED))
    client.messages = TREE

    shown = written(client, FakeLines("Q?", "/branches 9", "/branches x"))

    assert shown.count("/branches takes a number from 1 to 4.") == 2
    assert client.updated == []


# --- chats ----------------------------------------------------------------------------------------


def test_who_only_looks_around_makes_no_chat() -> None:
    client = FakeClient()
    written(client, FakeLines("/help", "/branches", "/system", "/new"))
    assert not hasattr(client, "title")


def test_a_chat_is_called_after_its_first_question_unless_it_has_a_name() -> None:
    done = events(CREATED, COMPLETED)
    client = FakeClient(done, done)

    written(client, FakeLines("What is\nthis?"))
    assert client.title == "What is this?"

    written(client, FakeLines("/new Mine", "What?"))
    assert client.title == "Mine"


# --- where lines come from ------------------------------------------------------------------------


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a pipe; yields the end to write to."""
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        yield writer


def test_each_line_of_a_pipe_is_read(pipe: int) -> None:
    os.write(pipe, b"one\ntwo\\\n\xff")
    os.close(pipe)
    lines = reading.lines()
    assert lines is not None and not lines.interactive
    assert [lines.read(), lines.read(), lines.read()] == ["one", "two\\", "\ufffd"]
    with pytest.raises(EOFError):
        lines.read()


def test_a_pipe_that_has_ended_asks_nothing(pipe: int) -> None:
    os.close(pipe)
    assert reading.lines() is None


def test_an_open_pipe_with_nothing_in_it_is_not_waited_for(pipe: int) -> None:
    assert reading.lines() is None
    os.close(pipe)


def test_no_standard_input_at_all_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert reading.lines() is None
