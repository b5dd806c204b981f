"""``llmchatlinker``: the command line. docs/cli.md has every command, and the exit codes.

A command is a row in ``COMMANDS`` and a function in a module of this package. The modules import
click and nothing heavy; what a command needs beyond that, it imports when it is called. So
``llmchatlinker --help`` loads neither Celery nor SQLAlchemy.
"""

from __future__ import annotations

import click

from llmchatlinker.cli.commands import Main

#: What ``llmchatlinker NAME`` is: a module and the command in it.
COMMANDS = {
    "alive": "llmchatlinker.cli.upkeep:alive",
    "broker": "llmchatlinker.cli.broker:broker",
    "dead-letters": "llmchatlinker.cli.dead_letters:dead_letters",
    "env": "llmchatlinker.cli.local:env",
    "flower": "llmchatlinker.cli.flower:flower",
    "get": "llmchatlinker.cli.instructions:get",
    "keys": "llmchatlinker.cli.keys:keys",
    "migrate": "llmchatlinker.cli.upkeep:migrate",
    "model": "llmchatlinker.cli.local:model",
    "purge": "llmchatlinker.cli.upkeep:purge",
    "reset": "llmchatlinker.cli.local:reset",
    "run": "llmchatlinker.cli.local:run",
    "send": "llmchatlinker.cli.instructions:send",
    "up": "llmchatlinker.cli.local:up",
}


@click.group(cls=Main, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmchatlinker")
def main() -> None:
    """Instructions between chat front-ends and large language models."""
