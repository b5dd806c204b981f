"""``llmchatlinker broker``: RabbitMQ's policies and users."""

from __future__ import annotations

import os

import click

from llmchatlinker.cli.commands import Group
from llmchatlinker.cli.output import print_json, wants_json


@click.group(cls=Group)
def broker() -> None:
    """RabbitMQ's policies: dead-lettering and limits."""


@broker.command(example="llmchatlinker broker apply --print")
@click.option("--print", "show", is_flag=True, help="Print rabbitmqctl commands instead.")
def apply(show: bool) -> None:
    """Apply the policies over RabbitMQ's management HTTP API."""
    from llmchatlinker import broker_policies
    from llmchatlinker.settings import get_settings

    if show:
        _print_commands(broker_policies.commands(get_settings()))
        return
    applied = broker_policies.apply(get_settings())
    if wants_json():
        print_json({"applied": applied})
    else:
        click.echo(f"Applied: {', '.join(applied)}")


@broker.command(example="llmchatlinker broker definitions > definitions.json")
def definitions() -> None:
    """Print the policies as a definitions file, for RabbitMQ's `load_definitions`."""
    from llmchatlinker import broker_policies

    print_json(broker_policies.definitions())


@broker.command(example="llmchatlinker broker user gateway --role client")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["client", "worker", "flower"]), required=True, help="What it may."
)
@click.option("--print", "show", is_flag=True, help="Print rabbitmqctl commands instead.")
def user(name: str, role: str, show: bool) -> None:
    """Make a RabbitMQ user that may do what its role needs, and nothing else.

    Its password comes from RABBITMQ_USER_PASSWORD, or is asked for.
    """
    from llmchatlinker import broker_policies
    from llmchatlinker.settings import get_settings

    if show:
        _print_commands(broker_policies.user_commands(get_settings(), name, role))
        return
    password = os.environ.get("RABBITMQ_USER_PASSWORD") or click.prompt(
        "Password", hide_input=True, confirmation_prompt=True
    )
    broker_policies.add_user(get_settings(), name, password, role)
    if wants_json():
        print_json({"user": name, "role": role})
    else:
        click.echo(f"User {name} may do what a {role} needs.")


def _print_commands(commands: list[str]) -> None:
    if wants_json():
        print_json({"commands": commands})
    else:
        click.echo("\n".join(commands))
