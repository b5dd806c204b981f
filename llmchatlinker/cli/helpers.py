"""For developers and shells: ``bench``, ``completion``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import Failure

ROOT = Path(__file__).resolve().parents[2]


@command(example="llmchatlinker bench latency --quick", prints_data=False)
@click.argument("scenarios", metavar="[SCENARIO]...", nargs=-1)
@click.option("--quick", is_flag=True, help="Fewer instructions.")
def bench(scenarios: tuple[str, ...], quick: bool) -> None:
    """Run the benchmarks, on servers of their own: our figures beside stock Celery's.

    They are in a checkout of the repository, and not in what pip installs.
    """
    if not (ROOT / "benchmarks" / "__main__.py").exists():
        raise Failure(
            "The benchmarks are not installed with the package.",
            remedy="In a checkout of the repository: make bench.",
        )
    arguments = [sys.executable, "-m", "benchmarks", *scenarios, *(["--quick"] if quick else [])]
    sys.exit(subprocess.run(arguments, cwd=ROOT, check=False).returncode)


@command(example='eval "$(llmchatlinker completion bash)"', prints_data=False)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that lets a shell complete commands and options.

    In ~/.bashrc or ~/.zshrc: what the example shows. For fish, write it into
    ~/.config/fish/completions/llmchatlinker.fish.
    """
    from click.shell_completion import get_completion_class

    program = click.get_current_context().find_root()
    kind = get_completion_class(shell)
    assert kind is not None
    name = "llmchatlinker"
    click.echo(kind(program.command, {}, name, f"_{name.upper()}_COMPLETE").source())
