"""Looking after servers of your own: ``migrate``, ``purge``, ``alive``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.output import console, print_json, wants_json


@command(example="llmchatlinker migrate")
@click.option("--check", is_flag=True, help="Only say what is missing; exit code 1 if anything is.")
def migrate(check: bool) -> None:
    """Bring the database to this version's schema."""
    from llmchatlinker.db import migrate as migrations

    if check:
        revisions = migrations.pending()
    else:
        with console(stderr=True).status("Looking at the schema") as line:
            revisions = migrations.migrate(report=lambda name: line.update(f"Applying {name}"))
    if wants_json():
        print_json({"missing" if check else "applied": revisions})
    elif not revisions:
        click.echo("The database is up to date.")
    else:
        click.echo(f"{'Missing' if check else 'Applied'}: {', '.join(revisions)}")
    if check and revisions:
        sys.exit(1)


@command(example="llmchatlinker purge")
def purge() -> None:
    """Delete now what is kept long enough: instructions that ended, results, dead letters, old calls.

    Workers of `database` do it by themselves, a little every few seconds. Messages of chats stay.
    """
    from rich.progress import Progress

    from llmchatlinker import retention

    out = console(stderr=wants_json())
    with Progress("{task.description}", "{task.completed} deleted", console=out) as progress:
        bars = {kind.name: progress.add_task(kind.name, total=None) for kind in retention.KINDS}
        done = retention.purge(
            seconds=float("inf"),
            report=lambda kind, count: progress.advance(bars[kind], count),
        )
    if wants_json():
        print_json({"deleted": done})
    else:
        click.echo(f"{sum(done.values())} rows deleted.")


@command(example="llmchatlinker alive /tmp/llmchatlinker-worker", prints_data=False)
@click.argument("heartbeat", type=click.Path(path_type=Path))
def alive(heartbeat: Path) -> None:
    """Exit with 0 when the worker that touches HEARTBEAT is connected, with 1 otherwise."""
    from llmchatlinker.health import is_alive

    sys.exit(0 if is_alive(heartbeat) else 1)
