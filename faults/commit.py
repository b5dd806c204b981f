"""Which code a run is of: the commit, and what was changed since."""

from __future__ import annotations

import hashlib
import subprocess

from benchmarks.sides import ROOT

UNKNOWN = "unknown"
#: Results are written while scenarios run, and change no promise.
_OF_CODE = ("--", ".", ":!faults/results", ":!docs")
DIGITS = 12


def current() -> str:
    """The commit's hash; behind ``+`` a digest of what differs from it; ``unknown`` without git."""
    try:
        head = _git("rev-parse", "HEAD").strip()
        changed = _git("status", "--porcelain", "--untracked-files=all", *_OF_CODE)
        if not changed:
            return head
        differs = changed + _git("diff", "HEAD", *_OF_CODE)
    except (OSError, subprocess.CalledProcessError):
        return UNKNOWN
    return f"{head}+{hashlib.sha256(differs.encode()).hexdigest()[:DIGITS]}"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", check=True
    )
    return done.stdout
