"""Any instruction from the shell: ``send``, ``get``, ``watch``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import INTERRUPTED, of_code
from llmchatlinker.cli.output import console, print_data, print_json, wants_json

if TYPE_CHECKING:
    from llmchatlinker.envelope import Envelope
    from llmchatlinker.streaming.follower import ResponseEvent
    from llmchatlinker.streaming.responses import ResponseStream


def _types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The instruction types, for a shell's completion."""
    from llmchatlinker.instructions import INSTRUCTION_SET

    return [name for name in INSTRUCTION_SET if name.startswith(incomplete.upper())]


@command(example="llmchatlinker send USER_CREATE username=ada")
@click.argument("type_name", metavar="TYPE", required=False, shell_complete=_types)
@click.argument("fields", metavar="[KEY=VALUE]...", nargs=-1)
@click.option(
    "--json", "file", type=click.File("r"), help="A file with an instruction; - for stdin."
)
@click.option("--no-wait", is_flag=True, help="Print the instruction's id and leave.")
def send(type_name: str | None, fields: tuple[str, ...], file: Any, no_wait: bool) -> None:
    """Submit an instruction and print its envelope.

    A value is JSON where it can be read as such (chat_id=1, usernames='["ada"]'), text otherwise.
    The envelope is printed as JSON, with `--output table` as a table. The exit code is 1 when it is
    an error.
    """
    if (file is None) == (type_name is None):
        raise click.UsageError("Give either TYPE or --json FILE.")
    if file is not None:
        text = file.read()
    else:
        text = json.dumps({"type": type_name, "data": dict(_field(field) for field in fields)})

    from llmchatlinker.message_queue import parse_message, publish_message
    from llmchatlinker.orchestrator import submit

    if no_wait:
        instruction = parse_message(text)
        found = submit(instruction.pop("type"), instruction.pop("data"), **instruction)
        if wants_json():
            print_json({"instruction_id": found})
        else:
            click.echo(found)
        return
    _print_envelope(json.loads(publish_message(text)))


def _field(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.UsageError(f"{text!r} is not KEY=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@command(example="llmchatlinker get 0190c5a2-6f2e-7c9e-8f57-3f1c1b6f0a11 --timeout 10")
@click.argument("instruction_id", metavar="ID")
@click.option("--timeout", type=float, default=0.0, help="Seconds to wait for it (default: don't).")
def get(instruction_id: str, timeout: float) -> None:
    """Print the envelope of an instruction that was submitted before.

    The exit code is 1 when it is an error, and 4 when it is not there yet.
    """
    from llmchatlinker.client import LLMChatLinkerClient

    _check_id(instruction_id)
    _print_envelope(LLMChatLinkerClient().result(instruction_id).get(timeout=timeout))


def _check_id(instruction_id: str) -> None:
    from llmchatlinker.ids import as_instruction_id

    if as_instruction_id(instruction_id) is None:
        raise of_code(
            "not_found",
            f"{instruction_id!r} is no instruction's id.",
            "`llmchatlinker send INSTRUCTION_LIST` lists instructions and their ids.",
        )


def _print_envelope(envelope: Envelope) -> None:
    if wants_json(default="json"):
        print_json(envelope)
        sys.exit(0 if envelope["status"] == "success" else 1)
    if envelope["data"]:
        print_data(envelope["data"])
    if envelope["status"] == "error":
        raise of_code(envelope["error"]["code"], envelope["message"])
    click.echo(f"{envelope['message']} ({envelope['instruction_id']})")


@command(example="llmchatlinker watch 0190c5a2-6f2e-7c9e-8f57-3f1c1b6f0a11")
@click.argument("instruction_id", metavar="ID")
@click.option(
    "--after", type=click.IntRange(0), default=0, help="Only events with greater numbers."
)
def watch(instruction_id: str, after: int) -> None:
    """Follow a generation: its text as it comes; with `--output json`, an event per line.

    Ctrl-C ends the watching and not the generation. The exit code is 1 when the generation fails or
    is cancelled.
    """
    from llmchatlinker.client import LLMChatLinkerClient
    from llmchatlinker.errors import Unavailable

    _check_id(instruction_id)
    last = after
    with LLMChatLinkerClient().follow(instruction_id, starting_after=after) as stream:
        show = _event_as_line if wants_json() else _shown_on_a_screen()
        try:
            for event in stream:
                last = event.sequence_number
                show(event)
        except KeyboardInterrupt:
            _say_how_to_go_on(instruction_id, last)
            sys.exit(INTERRUPTED)
        except Unavailable as error:
            remedy = f"Later: llmchatlinker watch {instruction_id} --after {last}"
            raise of_code(error.code, error.message, remedy) from None
        _exit_as_it_ended(stream)


def _event_as_line(event: ResponseEvent) -> None:
    click.echo(json.dumps(event.as_dict(), ensure_ascii=False))


def _shown_on_a_screen() -> Any:
    from llmchatlinker.embedded.prompt.screen import Screen
    from llmchatlinker.embedded.prompt.showing import Showing

    screen = Screen(console())
    showing = Showing(screen)

    def show(event: ResponseEvent) -> None:
        showing.take(event)
        if event.is_last:
            screen.end_line()

    return show


def _exit_as_it_ended(stream: ResponseStream) -> None:
    """A stream that has ended has its outcome."""
    envelope = stream.result().get(timeout=30)
    if envelope["status"] == "error":
        raise of_code(envelope["error"]["code"], envelope["message"])


def _say_how_to_go_on(instruction_id: str, last: int) -> None:
    click.echo("\nNo longer watching; the generation goes on.", err=True)
    click.echo(f"To see the rest: llmchatlinker watch {instruction_id} --after {last}", err=True)
    click.echo(
        f"To cancel it: llmchatlinker send LLM_RESPONSE_CANCEL instruction_id={instruction_id}",
        err=True,
    )
