"""``python -m llmchatlinker.main``: migrate the database, then run an orchestrator for all queues.

That is two worker processes, as in any deployment: one for generations, which take long, and one for
everything else, which must never wait behind them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

import click

from llmchatlinker.db.migrate import migrate
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.settings import get_settings, without_password
from llmchatlinker.topology import GENERATE, QUEUE_NAMES

POLL_SECONDS = 0.2


def worker_command(name: str, queues: list[str]) -> list[str]:
    """The command line of a worker for these queues."""
    command = [sys.executable, "-m", "celery", "-A", "llmchatlinker", "worker"]
    return [*command, "-Q", ",".join(queues), "-n", f"{name}@%h", "-l", get_settings().log_level]


def orchestrate() -> int:
    """Run the workers until a signal, or until one of them ends; returns the exit code."""
    commands = {
        "generate": worker_command("generate", [GENERATE]),
        "orchestrator": worker_command("orchestrator", [n for n in QUEUE_NAMES if n != GENERATE]),
    }
    # A session of its own each: Ctrl-C comes to this process alone, which passes it on once.
    workers = {
        name: subprocess.Popen(command, start_new_session=True, env=os.environ.copy())
        for name, command in commands.items()
    }
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers.values():
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    while any(worker.poll() is None for worker in workers.values()):
        for name, worker in workers.items():
            code = worker.poll()
            if code is not None and not stopping:
                click.echo(
                    f"The worker {name!r} ended with code {code}; stopping the other.", err=True
                )
                stop(signal.SIGTERM, None)
        time.sleep(POLL_SECONDS)
    return max(abs(worker.wait()) for worker in workers.values())


@click.command(help=__doc__)
def main() -> None:
    """See the module's docstring."""
    try:
        settings = get_settings()
        click.echo(f"Database: {without_password(settings.database_url)}")
        applied = migrate()
        click.echo(f"Migrations applied: {', '.join(applied) or 'none needed'}")
    except LLMChatLinkerError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"Broker: {without_password(settings.broker_url)}")
    sys.exit(orchestrate())


if __name__ == "__main__":
    main()
