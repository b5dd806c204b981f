"""What `llmchatlinker run`, `up`, `env` and `reset` do."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from rich.console import Console
from rich.markup import escape

from llmchatlinker.embedded import quickstart
from llmchatlinker.embedded.cluster import Cluster
from llmchatlinker.embedded.fetching import fetch_with_bar
from llmchatlinker.embedded.meanwhile import meanwhile
from llmchatlinker.embedded.paths import data_dir
from llmchatlinker.embedded.prompt import chat
from llmchatlinker.embedded.prompt.reading import lines
from llmchatlinker.embedded.prompt.screen import clean
from llmchatlinker.embedded.quickstart import Step, Target
from llmchatlinker.embedded.system import (
    LASTING,
    QUICKSTART,
    EmbeddedSystem,
    announce,
    announced,
)
from llmchatlinker.errors import StartFailed
from llmchatlinker.settings import without_password

LOCAL_PROVIDER = "local"
WATCH_SECONDS = 1.0


class Terminated(BaseException):
    """SIGTERM or SIGHUP: unwinds like Ctrl-C, so that everything is stopped in order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _stoppable() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(number)

    before = {n: signal.signal(n, stop) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _system(console: Console) -> Iterator[EmbeddedSystem]:
    """The embedded system, stopped whatever happens. A second Ctrl-C does not cut that short: workers
    then hand back at once what they would have finished.
    """
    started = time.monotonic()

    def report(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:6.1f} s[/dim]  {escape(what)}")

    system = EmbeddedSystem(report)
    # A shell starts what it puts into the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with _stoppable():
        try:
            yield system
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: system.hurry())
            report("stopping everything")
            system.stop()
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run(console: Console, endpoint: str | None, model: str | None, api_key: str | None) -> None:
    """The quickstart; then a chat with whoever sits at the terminal, or with the lines that were
    piped in. Raises StartFailed.
    """
    last_line = ""
    asking = None
    try:
        with _system(console) as system:
            system.start()
            target = _target(console, system, endpoint, model, api_key)
            console.print(f"LLM: {escape(target.llm_name)} at {escape(target.api_endpoint)}")
            settings = system.use(QUICKSTART, afresh=True)
            steps = _six(console, target)
            console.print(
                f"Every result is the row of its instruction_id in the table instructions of "
                f"{escape(without_password(settings.database_url))}"
            )
            last_line = (
                f"quickstart ok: 6 of 6 instructions, {quickstart.tokens(steps)} tokens generated"
            )
            asking = lines()
            if asking is not None:
                console.print(last_line, highlight=False)
                system.use(LASTING)
                keep_alive = partial(_keep_alive, console, system)
                with meanwhile(keep_alive, WATCH_SECONDS, "watch"):
                    chat(console, asking, target)
    except Terminated as ended:
        sys.exit(128 + ended.number)
    if asking is None or not asking.interactive:
        console.print(last_line, highlight=False)


def _keep_alive(console: Console, system: EmbeddedSystem) -> None:
    """Start workers again that have died."""
    try:
        for name in system.restart_dead_workers():
            console.print(f"[yellow]{name} had died and was started again[/yellow]")
    except StartFailed as error:
        console.print(f"[red]{escape(str(error))}[/red]")


def _six(console: Console, target: Target) -> list[Step]:
    def before(number: int, name: str) -> None:
        console.print(f"\n[bold]{number} of 6  {name}[/bold]")

    def after(step: Step) -> None:
        console.print(quickstart.shown(step.instruction), markup=False, style="dim")
        response = step.envelope["data"].get("llm_response")
        if response is not None:
            content = clean(response["content"]).strip()
            console.print(content, markup=False, highlight=False)
        console.print(
            f"[green]{escape(step.envelope['message'])}[/green] {step.seconds:.3f} s, "
            f"result stored as {step.envelope['instruction_id']}"
        )

    steps = quickstart.run(target, before, after)
    console.print()
    return steps


def _target(
    console: Console,
    system: EmbeddedSystem,
    endpoint: str | None,
    model: str | None,
    api_key: str | None,
) -> Target:
    if endpoint:
        if not model:
            raise StartFailed(
                "An endpoint without a model's name.",
                {"remedy": "Name it too: make run ENDPOINT=… MODEL=…, or --model."},
            )
        # By its address: a key that was given for one server is never sent to another.
        return Target(
            urlsplit(endpoint).netloc.rpartition("@")[2] or "own", endpoint, model, api_key
        )
    if model or api_key:
        raise StartFailed(
            "A model or an API key without an endpoint.",
            {"remedy": "Say where it is: make run ENDPOINT=… MODEL=…, or --endpoint."},
        )
    local = system.start_model(partial(fetch_with_bar, console))
    return Target(LOCAL_PROVIDER, local.endpoint, local.model)


def up(console: Console, *, with_model: bool) -> None:
    """The embedded system in the foreground, until Ctrl-C. Raises StartFailed."""
    with _system(console) as system:
        system.start()
        model = system.start_model(partial(fetch_with_bar, console)) if with_model else None
        system.use(LASTING)
        note = announce(system.environment(), system.directory)
        try:
            console.print('Up. In another terminal: [bold]eval "$(llmchatlinker env)"[/bold]')
            if model is not None:
                console.print(f"Local LLM: {model.model} at {model.endpoint}")
            console.print(
                f"Logs: {escape(str(system.directory / 'run'))}. Ctrl-C stops everything."
            )
            _watch(console, system)
        finally:
            # On a disk that has become read-only it stays, and names a process that is gone.
            with suppress(OSError):
                note.unlink(missing_ok=True)


def _watch(console: Console, system: EmbeddedSystem) -> None:
    pause = threading.Event()
    try:
        while True:
            pause.wait(WATCH_SECONDS)
            # First, since workers that die with it could not be started either.
            if system.postgres.pid is None:
                raise system.postgres.ended()
            for name in system.restart_dead_workers():
                console.print(f"[yellow]{name} had died and was started again[/yellow]")
    except (KeyboardInterrupt, Terminated):
        console.print()


def environment() -> dict[str, str]:
    """The settings of the system that is up. Raises StartFailed when none is."""
    found = announced(data_dir())
    if found is None:
        raise StartFailed(
            "No embedded system is running.", {"remedy": "Start one: llmchatlinker up."}
        )
    return found


def what_reset_removes() -> list[Path]:
    """The folders that hold lasting data."""
    return [path for name in ("postgres", "run", "model") if (path := data_dir() / name).exists()]


def reset() -> None:
    """Remove lasting data: chats, users, providers, keys. Raises StartFailed while it is in use."""
    folders = what_reset_removes()
    if any(folder.name == "postgres" for folder in folders):
        cluster = Cluster((data_dir() / "postgres").absolute())
        cluster.lock()  # nobody uses it, and nobody starts to
        cluster.unlock()
    for folder in folders:
        shutil.rmtree(folder)
