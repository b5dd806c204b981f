"""What commands print: tables for people, JSON for programs, and questions before what is final."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import OUTPUT
from llmchatlinker.cli.failures import Failure

if TYPE_CHECKING:
    from rich.console import Console


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


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Rows under headings. Where nobody looks, nothing is cut off, however long it gets."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    out = console()
    out.print(table, **({} if out.is_terminal else {"width": 10_000}))  # type: ignore[arg-type]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


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


def is_terminal() -> bool:
    """Whether somebody looks at standard output."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
