"""The machine and the software that figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from llmchatlinker.version import __version__

ROOT = Path(__file__).resolve().parent.parent
#: What benchmarks write themselves is no difference.
_WRITTEN = (":!benchmarks/results", ":!docs", ":!llmchatlinker/measured.py")
PACKAGES = ("celery", "kombu", "amqp", "sqlalchemy", "psycopg2-binary", "pydantic", "requests")


def describe() -> dict[str, Any]:
    """What figures depend on. ``load`` is the load average before the run: others' work."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mb": psutil.virtual_memory().total // 1_000_000,
        "load": [round(value, 2) for value in os.getloadavg()],
        "system": _system(),
        "python": platform.python_version(),
        "commit": commit(),
        "packages": {"llmchatlinker": __version__} | {name: _version(name) for name in PACKAGES},
    }


def commit(root: Path = ROOT) -> str | None:
    """The commit that is measured, with a ``+`` where the code differs from it; None without Git."""
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *_WRITTEN)
    return None if head is None else head + ("+" if changed else "")


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", root, *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no Git, or no repository
        return None
    return done.stdout.strip()


def _system() -> str:
    """The system's name without what would name the machine."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # not Linux
        return platform.system()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
