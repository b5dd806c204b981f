"""``llmchatlinker dead-letters``: seeing to what no worker could work on."""

from __future__ import annotations

import click

from llmchatlinker.cli.commands import Group
from llmchatlinker.cli.output import in_words, print_json, print_table, wants_json

SHOWN = ("id", "arrived_at", "queue", "reason", "task", "instruction_id", "became")


@click.group(cls=Group)
def dead_letters() -> None:
    """Messages that no worker could work on. Workers of `database` take them in by themselves."""


@dead_letters.command(name="list", example="llmchatlinker dead-letters list --became kept")
@click.option("--became", help="Only what was republished, closed, settled, kept, …")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, help="So many, the newest first."
)
@click.option("--before", type=int, help="Only those with smaller ids: the next page.")
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
def list_letters(became: str | None, limit: int, before: int | None, as_json: bool) -> None:
    """The newest dead letters."""
    from llmchatlinker.dead_letters import desk

    found = desk.newest(limit, became, before)
    if as_json or wants_json():
        print_json(found)
    elif not found:
        click.echo("There are no dead letters.")
    else:
        rows = [[letter[name] for name in SHOWN] for letter in found]
        print_table([name.replace("_", " ") for name in SHOWN], rows)


@dead_letters.command(example="llmchatlinker dead-letters show 7")
@click.argument("letter_id", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
def show(letter_id: int, as_json: bool) -> None:
    """One dead letter, and what is known of its instruction; never a text."""
    from llmchatlinker.dead_letters import desk

    letter = desk.one(letter_id)
    if as_json or wants_json():
        print_json(letter)
        return
    for name, value in letter.items():
        click.echo(f"{name.replace('_', ' ')}: {in_words(value)}")


@dead_letters.command(example="llmchatlinker dead-letters replay 7")
@click.argument("letter_id", metavar="ID", type=int)
def replay(letter_id: int) -> None:
    """Submit the letter's instruction once more, as a new one; print the new one's id.

    The data is that of the old instruction's row, so that row must still be there. Replayed twice, a
    letter gives the same new instruction.
    """
    from llmchatlinker.dead_letters import desk

    instruction_id, warning = desk.replay(letter_id)
    if warning:
        click.echo(warning, err=True)
    if wants_json():
        print_json({"instruction_id": instruction_id})
    else:
        click.echo(instruction_id)


@dead_letters.command(example="llmchatlinker dead-letters discard 7 8")
@click.argument("letter_ids", metavar="ID...", type=int, nargs=-1, required=True)
def discard(letter_ids: tuple[int, ...]) -> None:
    """Mark dead letters as seen to. They go when LLMCHATLINKER_DEAD_LETTER_RETENTION is over."""
    from llmchatlinker.dead_letters import desk

    for letter_id in letter_ids:
        desk.discard(letter_id)
    if wants_json():
        print_json({"discarded": letter_ids})
    else:
        click.echo(f"Discarded: {', '.join(map(str, letter_ids))}.")
