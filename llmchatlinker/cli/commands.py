"""What every command has: ``--output``, ``--debug``, an example in its help, errors in one line."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import click

from llmchatlinker.cli.failures import failing_in_one_line

OUTPUT = "llmchatlinker.output"
DEBUG = "llmchatlinker.debug"
JSON_ERRORS = "llmchatlinker.json_errors"
QUIET = logging.NullHandler()


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Into what all contexts of a call share: the option may stand before the command, or behind."""
    if value:
        ctx.meta[f"llmchatlinker.{param.name}"] = value


def _output_option() -> click.Option:
    return click.Option(
        ["--output"],
        type=click.Choice(["table", "json"]),
        callback=_keep,
        expose_value=False,
        help="For people, or for programs.",
    )


def _debug_option(*, hidden: bool = False) -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        callback=_keep,
        expose_value=False,
        hidden=hidden,
        help="Show the traceback of what is a defect.",
    )


class Command(click.Command):
    """A command with an example. ``prints_data``: it takes ``--output``."""

    def __init__(
        self, *args: Any, example: str = "", prints_data: bool = True, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes)
        self.example = example
        self.prints_data = prints_data
        if prints_data:
            self.params.append(_output_option())
        self.params.append(_debug_option(hidden=True))

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. What has no data refuses to be asked for it as JSON, and does not do without."""
        if not self.prints_data and ctx.meta.get(OUTPUT) == "json":
            raise click.UsageError(
                f"{ctx.command_path} prints no data: leave out --output json.", ctx
            )
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, as it is typed: never wrapped."""
        if self.example:
            with formatter.section("Example"):
                formatter.write(f"{'':>{formatter.current_indent}}{self.example}\n")


class Group(click.Group):
    """A group whose commands are ours."""

    command_class = Command


def command(
    name: str | None = None, *, example: str, **attributes: Any
) -> Callable[[Callable[..., Any]], Command]:
    """A command for the table: ``@command(example="llmchatlinker …")`` above a function."""
    return click.command(name, cls=Command, example=example, **attributes)


class Main(Group):
    """The root: finds a command's module when the command is asked for, and speaks for all errors."""

    def __init__(self, *args: Any, table: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self._table = table
        self.params += [_output_option(), _debug_option()]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether JSON is asked for anywhere: what is wrong with the rest is said in it, too."""
        ctx.meta[JSON_ERRORS] = "--output=json" in args or ("--output", "json") in pairwise(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every name of the table."""
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, imported now."""
        where = self._table.get(cmd_name)
        if where is None:
            return None
        module, _, attribute = where.partition(":")
        return cast(click.Command, getattr(importlib.import_module(module), attribute))

    def invoke(self, ctx: click.Context) -> Any:
        """Run what was asked for. The library's warnings are for logs: here an error says it once."""
        if not ctx.meta.get(DEBUG):
            logging.getLogger("llmchatlinker").addHandler(QUIET)
        with failing_in_one_line(
            debug=lambda: bool(ctx.meta.get(DEBUG)), as_json=bool(ctx.meta[JSON_ERRORS])
        ):
            return super().invoke(ctx)
