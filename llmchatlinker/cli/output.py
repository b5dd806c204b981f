"""What commands print: tables for people, JSON for programs, and questions before what is final."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import OUTPUT
from llmchatlinker.cli.failures import Failure, of_code

if TYPE_CHECKING:
    from rich.console import Console

    from llmchatlinker.envelope import Envelope

#: Columns of a table that nobody looks at, and the longest value in any table.
WIDE = 10_000
LONG = 300


def console(*, stderr: bool = False) -> Console:
    """A console of rich's: no colours with NO_COLOR, or where the output is no terminal."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, stderr=stderr)


def wants_json(default: str = "table") -> bool:
    """Whether ``--output json`` holds for this command."""
    chosen = click.get_current_context().meta.get(OUTPUT, default)
    return bool(chosen == "json")


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str = "") -> None:
    """Rows under headings. Where nobody looks, nothing is cut off, however long it gets."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = Text(title, style="bold") if title else None
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(value if isinstance(value, Text) else cell(value) for value in row))
    show(table)


def show(renderable: Any) -> None:
    """Anything that rich renders; as wide as it is, and without padding, where nobody looks."""
    out = console()
    if out.is_terminal:
        out.print(renderable)
        return
    out.width = WIDE
    with out.capture() as captured:
        out.print(renderable)
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def cell(value: Any) -> Any:
    """A value as a table shows it: in one line, and with nothing in it that would steer a terminal."""
    from rich.text import Text

    return Text(in_words(value))


def in_words(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    from llmchatlinker.embedded.prompt.screen import in_a_line

    if isinstance(value, dict | list | tuple):
        return in_a_line(json.dumps(value, ensure_ascii=False, default=str), LONG)
    return in_a_line(str(value), LONG)


def print_data(data: dict[str, Any]) -> None:
    """The data of any envelope, as tables: a list of objects, an object, or single values."""
    single = {name: value for name, value in data.items() if not isinstance(value, dict | list)}
    for name, value in data.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            columns = list(dict.fromkeys(key for item in value for key in item))
            print_table(columns, [[item.get(key) for key in columns] for item in value])
        elif isinstance(value, dict):
            print_table([name, ""], value.items())
        elif isinstance(value, list):
            print_table([name], [[item] for item in value])
    if single:
        print_table(["", ""], single.items())


def data_of(envelope: Envelope) -> dict[str, Any]:
    """What a success carries. Raises Failure for an error."""
    if envelope["status"] == "error":
        raise of_code(envelope["error"]["code"], envelope["message"])
    return envelope["data"]


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what can't be undone. Raises Failure where the answer is no, or nobody answers."""
    if yes:
        return
    try:
        agreed = click.confirm(question)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise Failure("Nobody is there to be asked.", remedy="Say it with --yes.") from None
    if not agreed:
        raise Failure("Nothing was done.")
