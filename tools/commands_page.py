"""``python -m tools.commands_page``: the part of docs/cli.md that click knows, written anew."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from llmchatlinker.cli import main
from llmchatlinker.cli.commands import Command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEADING = "## Commands\n"
#: Said once on the page, for all commands.
EVERYWHERE = ("output", "debug")
WIDTH = 100


def written(page: str) -> str:
    """The page with the commands as they are now: everything behind the heading."""
    before, heading, _ = page.partition(HEADING)
    return before + heading + "\n" + reference()


def reference() -> str:
    """Every command: what it does, how it is called, its options, an example."""
    return "\n".join(_section(path, command) for path, command in commands(main, "llmchatlinker"))


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, below its whole name."""
    ctx = click.Context(group, info_name=path)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        elif command is not None and not command.hidden:
            yield f"{path} {name}", command


def _section(path: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=path)
    usage = " ".join([path, *command.collect_usage_pieces(ctx)])
    parts = [f"### {path}\n", *_paragraphs(command.help or ""), f"```\n{usage}\n```\n"]
    records = [
        record
        for option in command.params
        if isinstance(option, click.Option)
        and option.name not in EVERYWHERE
        and (record := option.get_help_record(ctx))
    ]
    if records:
        rows = [f"| `{_cell(names)}` | {_cell(about)} |" for names, about in records]
        parts.append("\n".join(["| option | |", "|---|---|", *rows]) + "\n")
    if isinstance(command, Command) and command.example:
        parts.append(f"For example:\n\n```\n{command.example}\n```\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("  [", " [")


def _paragraphs(text: str) -> list[str]:
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return [
        textwrap.fill(" ".join(one.split()), WIDTH, break_on_hyphens=False) + "\n"
        for one in paragraphs
    ]


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
