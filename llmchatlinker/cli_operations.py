"""``llmchatlinker dead-letters`` and ``llmchatlinker purge``: seeing to what is left over."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.table import Table

from llmchatlinker.cli_errors import console, one_line_errors

SHOWN = ("id", "arrived_at", "queue", "reason", "task", "instruction_id", "became")


@click.group(name="dead-letters")
def dead_letters() -> None:
    """Messages that no worker could work on. Workers of `database` take them in by themselves."""


@dead_letters.command(name="list")
@click.option("--became", help="Only what was republished, closed, settled, kept, …")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, help="So many, the newest first."
)
@click.option("--before", type=int, help="Only those with smaller ids: the next page.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
@one_line_errors
def list_letters(became: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """The newest dead letters."""
    from llmchatlinker.dead_letters import desk

    found = desk.newest(limit, became, before)
    if as_json:
        _print_json(found)
        return
    if not found:
        click.echo("There are no dead letters.")
        return
    table = Table(*(name.replace("_", " ") for name in SHOWN), box=None, pad_edge=False)
    for letter in found:
        table.add_row(*("-" if letter[name] is None else str(letter[name]) for name in SHOWN))
    console().print(table)


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@one_line_errors
def show(letter_id: int, as_json: bool) -> None:
    """One dead letter, and what is known of its instruction; never a text."""
    from llmchatlinker.dead_letters import desk

    letter = desk.one(letter_id)
    if as_json:
        _print_json(letter)
        return
    for name, value in letter.items():
        click.echo(f"{name.replace('_', ' ')}: {'-' if value is None else value}")


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=int)
@one_line_errors
def replay(letter_id: int) -> None:
    """Submit the letter's instruction once more, as a new one; print the new one's id.

    The data is that of the old instruction's row, so that row must still be there. Replayed twice, a
    letter gives the same new instruction.
    """
    from llmchatlinker.dead_letters import desk

    instruction_id, warning = desk.replay(letter_id)
    if warning:
        click.echo(warning, err=True)
    click.echo(instruction_id)


@dead_letters.command()
@click.argument("letter_ids", metavar="ID...", type=int, nargs=-1, required=True)
@one_line_errors
def discard(letter_ids: tuple[int, ...]) -> None:
    """Mark dead letters as seen to. They go when LLMCHATLINKER_DEAD_LETTER_RETENTION is over."""
    from llmchatlinker.dead_letters import desk

    for letter_id in letter_ids:
        desk.discard(letter_id)
    click.echo(f"Discarded: {', '.join(map(str, letter_ids))}.")


@click.command()
@one_line_errors
def purge() -> None:
    """Delete now what is kept long enough: instructions that ended, results, dead letters, old calls.

    Workers of `database` do it by themselves, a little every few seconds. Messages of chats stay.
    """
    from rich.progress import Progress

    from llmchatlinker import retention

    with Progress("{task.description}", "{task.completed} deleted", console=console()) as progress:
        bars = {kind.name: progress.add_task(kind.name, total=None) for kind in retention.KINDS}
        done = retention.purge(
            seconds=float("inf"),
            report=lambda kind, count: progress.advance(bars[kind], count),
        )
    click.echo(f"{sum(done.values())} rows deleted.")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, default=str))
