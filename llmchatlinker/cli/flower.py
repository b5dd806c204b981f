"""``llmchatlinker flower``: the pages on which workers and stages are seen."""

from __future__ import annotations

from pathlib import Path

import click

from llmchatlinker.cli.commands import command


@command(example="llmchatlinker flower --port 5555", prints_data=False)
@click.option("--address", envvar="FLOWER_ADDRESS", default="127.0.0.1", show_default=True)
@click.option("--port", envvar="FLOWER_PORT", type=int, default=5555, show_default=True)
@click.option(
    "--auth-file",
    type=click.Path(path_type=Path),
    help="A file with user:password, a pair per line; else FLOWER_BASIC_AUTH, else one is made up.",
)
@click.option(
    "--allow-control", is_flag=True, help="Let its users stop and change workers that allow it."
)
@click.option(
    "--state",
    envvar="FLOWER_DB",
    type=click.Path(path_type=Path),
    help="The file in which it keeps what it saw.",
)
@click.option("--forget", is_flag=True, help="Keep nothing from one start to the next.")
@click.option("--max-tasks", type=click.IntRange(1), default=10_000, show_default=True)
def flower(
    address: str,
    port: int,
    auth_file: Path | None,
    allow_control: bool,
    state: Path | None,
    forget: bool,
    max_tasks: int,
) -> None:
    """Flower: workers, queues and every stage by name, in a browser. It shows ids and no text.

    On this machine only, with a password, and for looking on, unless you say otherwise.
    """
    from llmchatlinker import flower_command

    flower_command.check_broker()
    found, made_up = flower_command.credentials(auth_file)
    kept = None if forget else (state or flower_command.state_file()).expanduser().absolute()
    click.echo(f"Flower: http://{address}:{port}")
    if made_up:
        user, _, password = found[0].partition(":")
        click.echo(f"User {user}, password {password} (made up for this run).")
    flower_command.run(flower_command.Plan(address, port, found, kept, allow_control, max_tasks))
