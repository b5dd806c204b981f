"""Any instruction from the shell: ``send``, ``get``."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.output import print_json


@command(example="llmchatlinker send USER_CREATE username=ada")
@click.argument("type_name", metavar="TYPE", required=False)
@click.argument("fields", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--json", "file", type=click.File("r"), help="A file with an instruction; - for stdin."
)
@click.option("--no-wait", is_flag=True, help="Print the instruction's id and leave.")
def send(type_name: str | None, fields: tuple[str, ...], file: Any, no_wait: bool) -> None:
    """Submit an instruction and print its envelope.

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
    print_json(envelope)
    sys.exit(0 if envelope["status"] == "success" else 1)


@command(example="llmchatlinker get 0190c5a2-6f2e-7c9e-8f57-3f1c1b6f0a11 --timeout 10")
@click.argument("instruction_id")
@click.option("--timeout", type=float, default=0.0, help="Seconds to wait for it (default: don't).")
def get(instruction_id: str, timeout: float) -> None:
    """Print the envelope of an instruction that was submitted before."""
    from llmchatlinker.client import LLMChatLinkerClient
    from llmchatlinker.errors import NotFound
    from llmchatlinker.ids import as_instruction_id

    if as_instruction_id(instruction_id) is None:
        raise NotFound(f"{instruction_id!r} is no instruction's id.")
    envelope = LLMChatLinkerClient().result(instruction_id).get(timeout=timeout)
    print_json(envelope)
    sys.exit(0 if envelope["status"] == "success" else 1)


def _field(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"{text!r} is not KEY=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
