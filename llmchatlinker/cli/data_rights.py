"""What is kept of a user: ``export``, ``erase``."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import Failure, of_code
from llmchatlinker.cli.output import (
    confirm,
    console,
    data_of,
    in_words,
    print_json,
    print_table,
    wants_json,
)

if TYPE_CHECKING:
    from llmchatlinker.client import LLMChatLinkerClient

#: Seconds between two looks at how far an erasure has come.
LOOK = 1.0
GO_ON = (
    "Run it once more, perhaps with a longer --deadline: it goes on from where it was. Should the name "
    "be gone already: `llmchatlinker send USER_ERASE user_id={}`."
)
#: Only its owner may read what is exported.
PRIVATE = 0o600


@command(example="llmchatlinker export ada --file ada.json")
@click.argument("user")
@click.option("--file", "target", help="Where to (default: user-ID.json); - for standard output.")
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def export(user: str, target: str | None, force: bool) -> None:
    """Write everything that is kept of USER (an id, or a username) into a JSON file.

    Nobody but its owner may read the file.
    """
    from rich.progress import Progress

    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    user_id = _user(client, user)["user_id"]
    path = Path(target or f"user-{user_id}.json")
    columns = ("{task.description}", "{task.completed} rows")
    with (
        _file(path, force) if target != "-" else nullcontext(sys.stdout) as file,
        Progress(*columns, console=console(stderr=True)) as bar,
    ):
        task = bar.add_task("Exporting", total=None)
        document = _Document(file)
        for envelope in client.pages("USER_EXPORT", user_id=user_id):
            bar.advance(task, document.add(data_of(envelope)))
        document.end()
    if target == "-":
        return
    if wants_json():
        print_json({"file": str(path), "rows": document.rows})
    else:
        click.echo(f"{sum(document.rows.values())} rows written to {path}.")


class _Document:
    """One JSON object, written while its pages come: what has a million rows is never in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        #: How many rows of each section were written; and what else was.
        self.rows: dict[str, int] = {}
        self._single: set[str] = set()
        #: The section whose list is not closed yet.
        self._open: str | None = None

    def add(self, page: dict[str, Any]) -> int:
        """Write a page; how many rows it had. The sections come one behind the other."""
        count = 0
        for name, value in page.items():
            if isinstance(value, list):
                self._add_rows(name, value)
                count += len(value)
            elif name != "next" and name not in self._single:
                self._begin(name)
                self._single.add(name)
                self._file.write(_json(value))
        return count

    def end(self) -> None:
        """Close what is open."""
        self._close()
        self._file.write("\n}\n")

    def _add_rows(self, name: str, rows: list[Any]) -> None:
        if name not in self.rows:
            self._begin(name)
            self._file.write("[")
            self._open, self.rows[name] = name, 0
        for row in rows:
            self._file.write(",\n" if self.rows[name] else "\n")
            self._file.write(_json(row))
            self.rows[name] += 1

    def _begin(self, name: str) -> None:
        self._close()
        self._file.write(",\n" if self.rows or self._single else "{\n")
        self._file.write(f"{_json(name)}: ")

    def _close(self) -> None:
        if self._open is not None:
            self._file.write("\n]")
            self._open = None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _file(path: Path, force: bool) -> Iterator[IO[str]]:
    """A file that is there, whole and private, or not at all."""
    if path.exists() and not force:
        raise Failure(f"{path} is there already.", remedy="Name another --file, or say --force.")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        raise Failure(f"{path} can't be written: {error.strerror}.") from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            yield file
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@command(example="llmchatlinker erase ada --yes")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    help="Seconds that it may take (default: that of a generation).",
)
def erase(user: str, yes: bool, deadline: float | None) -> None:
    """Erase USER (an id, or a username), and everything that the user wrote or was answered.

    It can't be undone. `llmchatlinker export` keeps a copy. What is more than one deadline allows is
    erased in several runs: each goes on from where the one before has come to.
    """
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    found = _user(client, user)
    who = f"user {found['user_id']} ({in_words(found['username'])})"
    confirm(f"Erase {who} and everything that this user wrote?", yes=yes)
    with _counting(found["user_id"], f"Erasing {who}"):
        envelope = client.erase_user(found["user_id"], deadline=deadline)
    if envelope["status"] == "error" and envelope["error"]["code"] == "deadline_exceeded":
        raise of_code("deadline_exceeded", envelope["message"], GO_ON.format(found["user_id"]))
    erased = data_of(envelope)["erased"]
    if wants_json():
        print_json({"user_id": found["user_id"], "erased": erased})
    else:
        print_table(["erased", "rows"], erased.items())


@contextmanager
def _counting(user_id: int, words: str) -> Iterator[None]:
    """A line on a terminal that says how many rows are gone by now."""
    over = threading.Event()
    with console(stderr=True).status(words) as line:

        def count() -> None:
            from llmchatlinker.cli.database_facts import erased_so_far

            # Who may submit need not be one who may look into the tables: then there is no count.
            with suppress(Exception):
                while not over.wait(LOOK):
                    line.update(f"{words}: {erased_so_far(user_id)} rows")

        if console(stderr=True).is_terminal:
            threading.Thread(target=count, name="counting", daemon=True).start()
        try:
            yield
        finally:
            over.set()


def _user(client: LLMChatLinkerClient, name: str) -> dict[str, Any]:
    """By id where it is one: a username of digits alone can't be meant, to erase nobody else."""
    asked: dict[str, Any] = {"user_id": int(name)} if name.isdecimal() else {"username": name}
    found: dict[str, Any] = data_of(client.get_user(**asked))["user"]
    return found
