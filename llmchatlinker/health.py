"""The heartbeat file: a worker touches it while it is connected, and a probe looks at its age.

Cheap on purpose: ``celery inspect ping`` starts a Python, connects to the broker and asks every
worker, each time.
"""

from __future__ import annotations

import time
from pathlib import Path

from llmchatlinker.settings import get_settings

#: Seconds between two touches, and the age at which a worker counts as dead.
INTERVAL = 5.0
OLD = 30.0


def heartbeat_file() -> Path | None:
    """Where the heartbeat goes, or None."""
    name = get_settings().heartbeat_file
    return Path(name) if name else None


def touch() -> None:
    """Beat."""
    path = heartbeat_file()
    if path is not None:
        path.touch()


def is_alive(path: Path) -> bool:
    """Whether the worker behind ``path`` was connected within the last ``OLD`` seconds."""
    try:
        return time.time() - path.stat().st_mtime < OLD
    except FileNotFoundError:
        return False
