"""``llmchatlinker keys``: the keys of API keys at rest."""

from __future__ import annotations

import click

from llmchatlinker.cli.commands import Group
from llmchatlinker.cli.output import console, print_json, wants_json


@click.group(cls=Group)
def keys() -> None:
    """Keys for API keys at rest."""


@keys.command(example="export LLMCHATLINKER_SECRET_KEYS=$(llmchatlinker keys generate)")
def generate() -> None:
    """Print a new key for LLMCHATLINKER_SECRET_KEYS."""
    from llmchatlinker.secrets import generate_key

    key = generate_key()
    if wants_json():
        print_json({"key": key})
    else:
        click.echo(key)


@keys.command(example="llmchatlinker keys rotate")
def rotate() -> None:
    """Encrypt every stored API key anew with the first key of LLMCHATLINKER_SECRET_KEYS."""
    from rich.progress import MofNCompleteColumn, Progress

    from llmchatlinker.units.rotation import rotate_api_keys

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        bar = progress.add_task("Providers and LLMs", total=None)
        count = rotate_api_keys(lambda done, of: progress.update(bar, completed=done, total=of))
    if wants_json():
        print_json({"rotated": count})
    else:
        click.echo(f"{count} API key(s) encrypted anew.")
