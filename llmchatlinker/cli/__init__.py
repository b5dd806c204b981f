"""``llmchatlinker``: the command line. docs/cli.md has every command, and the exit codes.

A command is a row in ``COMMANDS`` and a function in a module of this package (after which
``python -m tools.commands_page`` writes docs/cli.md anew). The modules import
click and nothing heavy; what a command needs beyond that, it imports when it is called. So
``llmchatlinker --help`` loads neither Celery nor SQLAlchemy.
"""

from __future__ import annotations

import click

from llmchatlinker.cli.commands import Main

#: What ``llmchatlinker NAME`` is: a module and the command in it.
COMMANDS = {
    "alive": "llmchatlinker.cli.upkeep:alive",
    "bench": "llmchatlinker.cli.helpers:bench",
    "broker": "llmchatlinker.cli.broker:broker",
    "chat": "llmchatlinker.cli.chat:chat",
    "chats": "llmchatlinker.cli.lists:chats",
    "completion": "llmchatlinker.cli.helpers:completion",
    "dead-letters": "llmchatlinker.cli.dead_letters:dead_letters",
    "doctor": "llmchatlinker.cli.doctor:doctor",
    "env": "llmchatlinker.cli.local:env",
    "erase": "llmchatlinker.cli.data_rights:erase",
    "export": "llmchatlinker.cli.data_rights:export",
    "flower": "llmchatlinker.cli.flower:flower",
    "get": "llmchatlinker.cli.instructions:get",
    "keys": "llmchatlinker.cli.keys:keys",
    "llms": "llmchatlinker.cli.lists:llms",
    "migrate": "llmchatlinker.cli.upkeep:migrate",
    "model": "llmchatlinker.cli.local:model",
    "providers": "llmchatlinker.cli.lists:providers",
    "purge": "llmchatlinker.cli.upkeep:purge",
    "reset": "llmchatlinker.cli.local:reset",
    "run": "llmchatlinker.cli.local:run",
    "send": "llmchatlinker.cli.instructions:send",
    "sizing": "llmchatlinker.cli.sizing:sizing",
    "status": "llmchatlinker.cli.status:status",
    "up": "llmchatlinker.cli.local:up",
    "users": "llmchatlinker.cli.lists:users",
    "watch": "llmchatlinker.cli.instructions:watch",
}


@click.group(cls=Main, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="llmchatlinker")
def main() -> None:
    """Instructions between chat front-ends and large language models."""
