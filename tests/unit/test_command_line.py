"""The command line without a server: the table of commands, options, tables, errors, exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import requests
from click.testing import CliRunner, Result

from llmchatlinker import broker_policies
from llmchatlinker.cli import COMMANDS, broker_checks, main
from llmchatlinker.cli import status as status_command
from llmchatlinker.cli.broker_facts import Queue, Worker
from llmchatlinker.cli.checks import checked, fail, ok, warn
from llmchatlinker.cli.commands import Command
from llmchatlinker.cli.database_facts import Connections, UnderWay
from llmchatlinker.cli.failures import Failure
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded import commands as embedded_commands
from llmchatlinker.envelope import Envelope, failure, success
from llmchatlinker.errors import (
    ConfigurationError,
    DeadlineExceeded,
    NotFound,
    ResultTimeout,
    Unavailable,
)
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.settings import Settings, use_settings
from tools import commands_page

INSTRUCTION_ID = "0190c5a2-6f2e-7c9e-8f57-3f1c1b6f0a11"
PROGRAMS = dict(commands_page.commands(main, "llmchatlinker"))
each_command = pytest.mark.parametrize("path", PROGRAMS)


def run(*arguments: str, **options: Any) -> Result:
    return CliRunner().invoke(main, list(arguments), **options)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Let the client answer with these envelopes; the list of what it was asked."""

    def prepare(*envelopes: Envelope) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []
        left = iter(envelopes)

        def answer(self: Any, type: Any, /, **arguments: Any) -> Envelope:
            name = type if isinstance(type, str) else type.name
            asked.append({"type": name} | {k: v for k, v in arguments.items() if v is not None})
            return next(left)

        monkeypatch.setattr(LLMChatLinkerClient, "run", answer)
        return asked

    return prepare


@pytest.fixture
def breaks(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Let `llmchatlinker env` raise."""

    def prepare(error: BaseException) -> None:
        def environment() -> Iterator[None]:
            raise error

        monkeypatch.setattr(embedded_commands, "environment", environment)

    return prepare


# --- the table of commands --------------------------------------------------------------------------


def test_the_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from llmchatlinker.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'celery', 'kombu', 'sqlalchemy', 'psycopg2', 'requests', 'pydantic', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_row_of_the_table_is_a_command_of_that_name() -> None:
    ctx = click.Context(main)
    assert [main.get_command(ctx, name).name for name in COMMANDS] == list(COMMANDS)  # type: ignore[union-attr]


@each_command
def test_every_command_has_an_example_that_it_understands(path: str) -> None:
    command = PROGRAMS[path]
    assert isinstance(command, Command), (
        f"{path} is to be made with llmchatlinker.cli.commands.command"
    )
    example = command.example
    assert path in example
    words = shlex.split(example.partition(path)[2].partition(")")[0].partition(">")[0])
    command.make_context(path, words)


@each_command
def test_every_command_shows_its_example_in_its_help(path: str) -> None:
    command = PROGRAMS[path]
    assert isinstance(command, Command)
    assert f"Example:\n  {command.example}\n" in run(*path.split()[1:], "--help").output


def test_the_page_has_every_command_as_it_is() -> None:
    page = commands_page.PAGE.read_text(encoding="utf-8")
    assert page == commands_page.written(page), "python -m tools.commands_page writes it anew"


def test_a_shell_gets_a_script_that_completes() -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_LLMCHATLINKER_COMPLETE" in run("completion", shell).output


# --- errors and exit codes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(NotFound("No."), 1), (Unavailable("No."), 3), (ResultTimeout("No."), 4)],
    ids=lambda value: getattr(value, "code", ""),
)
def test_an_error_is_one_line_with_its_code_and_an_exit_code(
    breaks: Callable[[BaseException], None], error: Any, exit_code: int
) -> None:
    breaks(error)
    result = run("env")
    assert result.exit_code == exit_code
    assert result.stderr.startswith(f"Error ({error.code}): No.")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_remedy_stands_in_the_same_line(breaks: Callable[[BaseException], None]) -> None:
    breaks(ConfigurationError("Two\nlines.", {"remedy": "Mend it."}))
    assert run("env").stderr == "Error (configuration): Two lines. What to do: Mend it.\n"


def test_a_defect_is_one_line_that_quotes_nobody(breaks: Callable[[BaseException], None]) -> None:
    breaks(ValueError("what somebody wrote"))
    result = run("env")
    assert result.exit_code == 1
    assert "A defect of LLMChatLinker's own: ValueError in cli/local.py" in result.stderr
    assert "somebody" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("--debug", "env"), ("env", "--debug")], ids=" ".join)
def test_debug_shows_the_traceback_of_a_defect(
    breaks: Callable[[BaseException], None], words: tuple[str, ...]
) -> None:
    breaks(ValueError("what somebody wrote"))
    assert "Traceback" in run(*words).stderr


@pytest.mark.parametrize(
    "words", [("--output", "json", "env"), ("env", "--output=json")], ids=" ".join
)
def test_with_json_an_error_is_an_object_on_standard_error(
    breaks: Callable[[BaseException], None], words: tuple[str, ...]
) -> None:
    breaks(ConfigurationError("Two\nlines.", {"remedy": "Mend it."}))
    result = run(*words)
    said = {"code": "configuration", "message": "Two lines.", "remedy": "Mend it."}
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {"error": said}


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (NotFound("No."), 1, "not_found"),
        (Unavailable("No."), 3, "unavailable"),
        (ResultTimeout("No."), 4, "result_timeout"),
        (Failure("No."), 1, "failed"),
        (ValueError("what somebody wrote"), 1, "internal"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_with_json_every_kind_of_error_has_a_code_and_its_exit_code(
    breaks: Callable[[BaseException], None], error: BaseException, exit_code: int, code: str
) -> None:
    breaks(error)
    result = run("env", "--output", "json")
    assert (result.exit_code, json.loads(result.stderr)["error"]["code"]) == (exit_code, code)
    assert "somebody" not in result.stderr


@pytest.mark.parametrize(
    "words", [("users", "--limit", "0"), ("get",), ("nonsense",)], ids=" ".join
)
def test_with_json_wrong_usage_is_an_object_too(words: tuple[str, ...]) -> None:
    for result in (run("--output", "json", *words), run(*words, "--output", "json")):
        assert result.exit_code == 2
        assert json.loads(result.stderr)["error"]["code"] == "usage"


@each_command
def test_every_command_takes_json_or_refuses_it_in_one_clear_line(path: str) -> None:
    command = PROGRAMS[path]
    assert isinstance(command, Command)
    if "--output" in run(*path.split()[1:], "--help").output:
        return
    words = shlex.split(command.example.partition(path)[2].partition(")")[0])
    result = run("--output", "json", *path.split()[1:], *words, prog_name="llmchatlinker")
    assert result.exit_code == 2
    message = f"{path} prints no data: leave out --output json."
    assert json.loads(result.stderr) == {"error": {"code": "usage", "message": message}}
    assert result.stdout == ""


def test_an_interruption_exits_with_130(breaks: Callable[[BaseException], None]) -> None:
    breaks(KeyboardInterrupt())
    result = run("env")
    assert (result.exit_code, result.stderr) == (130, "Stopped.\n")


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("send",),
        ("send", "USER_CREATE", "username"),
        ("get",),
        ("--output", "xml", "users"),
        ("users", "--limit", "0"),
        ("chat", "--endpoint", "http://127.0.0.1/v1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


@pytest.mark.parametrize("command", ["get", "watch"])
def test_what_is_no_id_is_not_looked_for(command: str) -> None:
    result = run(command, "nonsense")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "Error (not_found): 'nonsense' is no instruction's id. What to do:"
    )


# --- envelopes --------------------------------------------------------------------------------------


@pytest.fixture
def envelope(monkeypatch: pytest.MonkeyPatch) -> Callable[[Envelope], None]:
    """What `get` finds."""

    def prepare(found: Envelope) -> None:
        monkeypatch.setattr(InstructionResult, "get", lambda self, timeout=None: found)

    return prepare


def test_an_envelope_is_json_unless_a_table_is_asked_for(
    envelope: Callable[[Envelope], None],
) -> None:
    found = success(INSTRUCTION_ID, {"users": [{"user_id": 1, "username": "ada"}], "next": None})
    envelope(found)
    assert json.loads(run("get", INSTRUCTION_ID).stdout) == found
    assert run("--output", "table", "get", INSTRUCTION_ID).stdout.splitlines() == [
        "user_id  username",
        "1        ada",
        "",
        "next  -",
        f"done ({INSTRUCTION_ID})",
    ]


def test_an_envelope_that_is_an_error_exits_with_1(envelope: Callable[[Envelope], None]) -> None:
    found = failure(INSTRUCTION_ID, NotFound("There is no user 9."), "execute")
    envelope(found)
    result = run("get", INSTRUCTION_ID)
    assert (result.exit_code, json.loads(result.stdout)) == (1, found)
    result = run("get", INSTRUCTION_ID, "--output", "table")
    assert (result.exit_code, result.stderr) == (1, "Error (not_found): There is no user 9.\n")


# --- lists ------------------------------------------------------------------------------------------


def a_chat(chat_id: int, title: str) -> dict[str, Any]:
    users = [{"username": "ada"}, {"username": "charles"}]
    more = {"turn_policy": "enqueue", "updated_at": "2026-01-01"}
    return {"chat_id": chat_id, "title": title, "users": users} | more


def test_a_list_is_a_table_and_says_how_to_see_more(answers: Callable[..., Any]) -> None:
    asked = answers(success("", {"chats": [a_chat(1, "Engines")], "next": 1}))
    result = run("chats", "--user", "7", "--limit", "1")
    assert asked == [{"type": "CHAT_LIST_BY_USER", "user_id": 7, "limit": 1}]
    assert result.stdout.splitlines() == [
        "chat id  title    users         turn policy  updated at",
        "1        Engines  ada, charles  enqueue      2026-01-01",
    ]
    assert result.stderr == "There are more: --after 1, or --all.\n"


def test_all_pages_are_one_json_document(answers: Callable[..., Any]) -> None:
    pages: list[dict[str, Any]] = [
        {"users": [{"user_id": 1}], "next": 1},
        {"users": [{"user_id": 2}], "next": None},
    ]
    asked = answers(*(success("", page) for page in pages))
    document = json.loads(run("users", "--all", "--output", "json").stdout)
    assert document == {"users": [{"user_id": 1}, {"user_id": 2}], "next": None}
    assert [question.get("after") for question in asked] == [None, 1]


def test_what_others_wrote_does_not_steer_the_terminal(answers: Callable[..., Any]) -> None:
    answers(success("", {"chats": [a_chat(1, "\x1b[2Jred\nalert [bold]")], "next": None}))
    result = run("chats")
    assert "\x1b" not in result.stdout
    assert "[2Jred alert [bold]" in result.stdout


def test_an_empty_list_says_so(answers: Callable[..., Any]) -> None:
    answers(success("", {"llms": [], "next": None}))
    assert run("llms").stdout == "There are no llms.\n"


def test_a_list_that_is_refused_is_an_error(answers: Callable[..., Any]) -> None:
    answers(failure("", NotFound("There is no provider 9."), "execute"))
    result = run("llms", "--provider", "9")
    assert (result.exit_code, result.stderr) == (1, "Error (not_found): There is no provider 9.\n")


# --- a user's data ----------------------------------------------------------------------------------


def a_user(user_id: int, username: str) -> Envelope:
    return success("", {"user": {"user_id": user_id, "username": username}})


def test_an_export_puts_pages_together_in_a_private_file(
    answers: Callable[..., Any], tmp_path: Path
) -> None:
    user = {"user_id": 1, "username": "ada"}
    answers(
        a_user(1, "ada"),
        success("", {"user": user, "chats": [], "messages": [{"id": 1}], "next": 5}),
        success("", {"user": user, "messages": [{"id": 2}], "records": [{"id": 3}], "next": None}),
    )
    path = tmp_path / "ada.json"

    result = run("export", "ada", "--file", str(path), "--output", "json")

    assert json.loads(result.stdout)["rows"] == {"chats": 0, "messages": 2, "records": 1}
    assert json.loads(path.read_text()) == {
        "user": user,
        "chats": [],
        "messages": [{"id": 1}, {"id": 2}],
        "records": [{"id": 3}],
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_an_export_that_fails_leaves_the_older_one(
    answers: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "ada.json"
    path.write_text("older")
    answers(a_user(1, "ada"))
    assert "is there already" in run("export", "ada", "--file", str(path)).stderr
    page = success("", {"user": {}, "messages": [{}], "next": 5})
    answers(a_user(1, "ada"), page, failure("", NotFound("Gone."), "execute"))
    assert run("export", "ada", "--file", str(path), "--force").exit_code == 1
    assert (path.read_text(), list(tmp_path.iterdir())) == ("older", [path])


def test_an_export_to_standard_output_is_nothing_but_json(answers: Callable[..., Any]) -> None:
    page = success("", {"user": {}, "chats": [], "next": None})
    answers(a_user(1, "ada"), page)
    assert json.loads(run("export", "1", "--file", "-").stdout) == {"user": {}, "chats": []}


def test_nobody_is_erased_without_a_yes(answers: Callable[..., Any]) -> None:
    for said, code in (("n\n", 1), ("", 1)):
        asked = answers(a_user(7, "ada"))
        result = run("erase", "ada", input=said)
        assert result.exit_code == code
        assert "user 7 (ada)" in result.output
        assert [question["type"] for question in asked] == ["USER_GET"]


def test_digits_are_an_id_and_never_a_name(answers: Callable[..., Any]) -> None:
    asked = answers(a_user(7, "ada"), success("", {"erased": {"users": 1}}))
    result = run("erase", "7", "--yes", "--output", "json")
    assert json.loads(result.stdout) == {"user_id": 7, "erased": {"users": 1}}
    assert asked[0] == {"type": "USER_GET", "user_id": 7}
    assert asked[1]["type"] == "USER_ERASE"


def test_an_erasure_that_is_too_long_for_its_deadline_says_how_to_go_on(
    answers: Callable[..., Any],
) -> None:
    asked = answers(a_user(7, "ada"), failure("", DeadlineExceeded(), "execute"))
    result = run("erase", "ada", "--yes", "--deadline", "1200", "--output", "json")
    assert asked[1] == {"type": "USER_ERASE", "user_id": 7, "deadline": 1200.0}
    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, error["code"]) == (1, "deadline_exceeded")
    assert "goes on from where it was" in error["remedy"]
    assert "USER_ERASE user_id=7" in error["remedy"]


# --- chat -------------------------------------------------------------------------------------------


def an_llm(llm_id: int, name: str) -> dict[str, Any]:
    return {"llm_id": llm_id, "llm_name": name, "provider_id": 1}


def test_a_chat_asks_which_llm_where_there_are_several(answers: Callable[..., Any]) -> None:
    answers(success("", {"llms": [an_llm(1, "small"), an_llm(2, "large")], "next": None}))
    result = run("chat", input="hello\n")
    assert result.exit_code == 1
    assert "Say --llm ID: 1 small, 2 large." in result.stderr


def test_a_chat_without_an_llm_says_how_to_get_one(answers: Callable[..., Any]) -> None:
    answers(success("", {"llms": [], "next": None}))
    assert "--endpoint and --model make one" in run("chat", input="hello\n").stderr


def test_a_chat_of_others_is_not_gone_on_with(answers: Callable[..., Any]) -> None:
    answers(
        success("", {"llms": [an_llm(1, "small")], "next": None}),
        a_user(7, "ada"),
        success("", {"chat": {"chat_id": 3, "users": [{"user_id": 8}]}}),
    )
    result = run("chat", "--chat", "3", "--user", "ada", input="hello\n")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error (not_a_member): Chat 3 is not one of this user's.")


# --- status and doctor ------------------------------------------------------------------------------


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> status_command.Status:
    """What `status` finds: one queue with a worker, and one without."""
    worker = Worker("one@host", ["control"], slots=8, active={"control": 2}, done=40, uptime=3725.0)
    under_way = UnderWay(open=5, by_state={"submitted": 3, "waiting": 2}, oldest_open=90.0)
    under_way.waiting, under_way.oldest_waiting = {"turn": 2}, 12.0
    under_way.due["control"] = 3
    found = status_command.Status(
        queues=[Queue("control", 1, 1), Queue("user", 0, 0)],
        workers=[worker],
        under_way=under_way,
        connections=Connections(100, 12, 10),
    )
    monkeypatch.setattr(status_command, "read", lambda: found)
    return found


def test_the_status_shows_queues_workers_and_what_waits(found: status_command.Status) -> None:
    assert run("status").stdout.splitlines() == [
        "unit              queue    ready  active  due  consumers  workers",
        "Control Unit      control      1       2    3          1        1",
        "User Manage Unit  user         0       0    0          0        0",
        "",
        "worker    queues   active  slots  done     up for",
        "one@host  control       2      8    40  1 h 2 min",
        "",
        "Open instructions: 5 (3 submitted, 2 waiting); the oldest for 1 min 30 s.",
        "Waiting: 2 for turn; the oldest was submitted 12 s ago.",
        "In the last minute: 0 finished, 0 of them with an error.",
        "PostgreSQL: 12 of 100 connections, 10 of them LLMChatLinker's.",
    ]


def test_the_status_of_half_a_system_is_shown_and_exits_with_3(
    found: status_command.Status,
) -> None:
    found.queues, found.workers, found.unreachable = [], None, True
    found.problems = ["The broker does not answer."]
    result = run("status", "--output", "json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["problems"] == ["The broker does not answer."]
    assert document["under_way"]["open"] == 5


def test_a_group_of_checks_ends_with_what_it_raises() -> None:
    def group() -> Iterator[Any]:
        yield ok("one", "fine")
        raise Unavailable("Gone.", {"remedy": "Start it."})

    assert list(checked("two", group)) == [ok("one", "fine"), fail("two", "Gone.", "Start it.")]


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (Unavailable("Gone.", {"server": "postgresql"}), "Gone.", "pg_hba.conf"),
        (Unavailable("Gone.", {"server": "broker"}), "Gone.", "Start RabbitMQ"),
        (Unavailable("Gone."), "Gone.", "Check that the server runs"),
        (Failure("No.", remedy="Do it."), "No.", "Do it."),
        (KeyError("what somebody wrote"), "A defect of LLMChatLinker's own: KeyError", "--debug"),
    ],
)
def test_whatever_a_group_of_checks_raises_fails_that_group_alone_and_has_a_remedy(
    error: Exception, said: str, remedy: str
) -> None:
    def group() -> Iterator[Any]:
        yield ok("one", "fine")
        raise error

    first, second = checked("two", group)

    assert first.state == "ok"
    assert (second.name, second.state) == ("two", "fail")
    assert second.found.startswith(said)
    assert remedy in second.remedy
    assert "somebody" not in second.found + second.remedy


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_refusal_of_rabbitmqs_api_says_what_to_do_and_fails_the_policies_alone(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    response = requests.Response()
    response.status_code = status
    monkeypatch.setattr(requests, "request", lambda *_, **__: response)
    settings = Settings(broker_api_url="http://eve:secret@127.0.0.1:1")
    use_settings(settings)
    try:
        (check,) = checked("policies", lambda: [broker_checks._policies()])
        assert broker_checks.clock() is None
    finally:
        use_settings(None)
    assert check.state == "fail"
    assert f"HTTP {status}" in check.found
    assert "rabbitmqctl" in check.remedy
    assert "secret" not in check.found + check.remedy


def test_policies_are_compared_with_those_that_the_broker_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there: list[dict[str, Any]] = [
        {"vhost": "/", "name": name} | policy for name, policy in broker_policies.policies().items()
    ]
    response = requests.Response()
    response.status_code = 200
    monkeypatch.setattr(response, "json", lambda: there)
    monkeypatch.setattr(requests, "request", lambda *_, **__: response)
    settings = Settings(broker_api_url="http://127.0.0.1:1")
    assert broker_policies.missing(settings) == []
    there[0]["definition"] = {"delivery-limit": 2}
    del there[1]
    assert broker_policies.missing(settings) == list(broker_policies.policies())


@pytest.mark.parametrize(("worst", "exit_code"), [("warn", 0), ("fail", 1)])
def test_the_doctor_exits_with_1_for_failures_and_not_for_warnings(
    monkeypatch: pytest.MonkeyPatch, worst: str, exit_code: int
) -> None:
    made = {"warn": warn, "fail": fail}[worst]("two", "not so well", "Mend it.")
    monkeypatch.setattr(
        "llmchatlinker.cli.doctor._checks", lambda with_providers: [ok("one", "fine"), made]
    )
    result = run("doctor")
    assert result.exit_code == exit_code
    assert f"{worst:4}  two  not so well\n           What to do: Mend it.\n" in result.stdout
    assert json.loads(run("doctor", "--output", "json").stdout)["ok"] is (exit_code == 0)


def test_the_benchmarks_are_asked_for_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("llmchatlinker.cli.helpers.ROOT", tmp_path)
    assert "make bench" in run("bench").stderr
