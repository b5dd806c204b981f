"""``llmchatlinker flower``: Flower as it should stand before this system.

As it comes, Flower listens on every interface, asks nobody who they are, stops workers for whoever
asks, forgets what it saw, and reads results from the backend. Here it listens on the loopback, asks
for a password, looks on only, remembers, and gives no result away: results hold what users wrote.
Everything else can be set as Flower itself has it, by ``FLOWER_…`` in the environment
(https://flower.readthedocs.io/en/latest/config.html); a ``flowerconfig.py`` in the current folder is
not read. Written against Flower 2.2 (``flower/command.py``, ``flower/urls.py``).
"""

from __future__ import annotations

import os
import secrets
import signal
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmchatlinker.errors import ConfigurationError, StartFailed
from llmchatlinker.settings import get_settings

USER = "flower"
BASIC_AUTH = "FLOWER_BASIC_AUTH"
#: Milliseconds between two savings of what it saw; it is saved at a stop as well.
SAVE_EVERY = 60_000

#: What is refused whatever is allowed. A result is what a user wrote and read. An instruction begins
#: with its row, so a task that is sent by itself would find none.
NEVER = (
    "/api/task/result/",
    "/api/task/apply/",
    "/api/task/async-apply/",
    "/api/task/send-task/",
    "/api/task/abort/",
)
REFUSAL = "Not by way of Flower: submit instructions and read results with LLMChatLinker's client."


@dataclass(frozen=True, slots=True)
class Plan:
    """How Flower is to run. ``credentials``: each ``user:password``. ``state``: None to forget."""

    address: str
    port: int
    credentials: tuple[str, ...] = field(repr=False)
    state: Path | None
    allow_control: bool = False
    max_tasks: int = 10_000


def credentials(
    file: Path | None, environ: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], bool]:
    """Who may see the pages, and whether they were made up just now.

    From the file, a ``user:password`` per line, or from ``FLOWER_BASIC_AUTH``, with commas between
    several. Never from the command line, which every user of the machine can read.
    """
    environ = os.environ if environ is None else environ
    if file is not None:
        try:
            given = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} can't be read: {type(error).__name__}.") from None
    else:
        given = environ.get(BASIC_AUTH, "").split(",")
    found = tuple(line.strip() for line in given if line.strip())
    if not found and file is None:
        return (f"{USER}:{secrets.token_urlsafe(18)}",), True
    for pair in found:
        user, _, password = pair.partition(":")
        if not user or not password:
            raise ConfigurationError(
                f"{file or BASIC_AUTH} must have user:password, with nothing left out.",
            )
    if not found:
        raise ConfigurationError(f"{file} is empty: it takes user:password, a pair per line.")
    return found, False


def state_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where Flower keeps what it saw, unless told otherwise: the folder of a user's state."""
    environ = os.environ if environ is None else environ
    if os.geteuid() == 0:
        return Path("/var/lib/llmchatlinker/flower/state")
    home = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "llmchatlinker" / "flower" / "state"


def check_broker() -> None:
    """Raise ConfigurationError where there is nothing for Flower to see."""
    if get_settings().broker_is_embedded:
        raise ConfigurationError(
            "Flower needs RabbitMQ: where messages travel through PostgreSQL, workers send no "
            "events and hear no remote control.",
            {
                "remedy": "Set LLMCHATLINKER_BROKER_URL to a RabbitMQ. In the embedded system "
                "INSTRUCTION_LIST and INSTRUCTION_GET show what goes on."
            },
        )


def check_state(path: Path) -> None:
    """Make the folder of Flower's file. Nobody else may write there: the file is a pickle."""
    folder = path.parent
    remedy = {"remedy": "Name another file with --state, or say --forget."}
    try:
        folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise StartFailed(f"The folder {folder} can't be made: {error.strerror}.", remedy) from None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartFailed(
            f"The folder {folder} is not this user's alone to write to, and whoever can write to "
            "Flower's file can run code in Flower.",
            remedy,
        )


def run(plan: Plan) -> None:
    """Run Flower until SIGTERM or Ctrl-C. Raises StartFailed where it can't start."""
    check_broker()
    if plan.state is not None:
        check_state(plan.state)
    os.umask(stat.S_IRWXG | stat.S_IRWXO)

    from flower import command, urls
    from flower.app import Flower
    from flower.events import get_prometheus_metrics
    from flower.options import options
    from prometheus_client import REGISTRY
    from tornado.options import parse_command_line

    from llmchatlinker.celery_app import app

    command.apply_env_options()
    parse_command_line(["flower"])  # the logging, by what the environment says
    _apply(plan, options)
    command.extract_settings()
    command.setup_logging()
    urls.handlers[:] = [_kept(handler) for handler in urls.handlers]
    # Counted up by what is received and down by what is started, of which brief stages don't tell.
    REGISTRY.unregister(get_prometheus_metrics().number_of_prefetched_tasks)
    flower = Flower(capp=app, options=options, **urls.settings)
    try:
        flower.start_http_server()
    except OSError as error:
        raise StartFailed(
            f"Flower can't listen on {plan.address}:{plan.port}: {error.strerror}.",
            {"remedy": "Name another --port, or another --address."},
        ) from None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        pass
    finally:
        flower.stop()  # saves what it saw


def _apply(plan: Plan, options: Any) -> None:
    options.address, options.port = plan.address, plan.port
    # With `auth`, which is Flower's own OAuth, there are no passwords.
    options.basic_auth = [] if options.auth else list(plan.credentials)
    options.read_only = not plan.allow_control
    options.max_tasks = plan.max_tasks
    options.persistent = plan.state is not None
    if plan.state is not None:
        options.db = str(plan.state)
        options.state_save_interval = SAVE_EVERY


def _kept(handler: Any) -> Any:
    if not isinstance(handler, tuple) or not handler[0].startswith(NEVER):
        return handler
    from flower.api import BaseApiHandler
    from tornado.web import HTTPError, authenticated

    class Refused(BaseApiHandler):
        """Says no to those who may ask at all."""

        @authenticated
        def get(self, *_: str) -> None:
            raise HTTPError(403, REFUSAL)

        post = get

    return (handler[0], Refused)
