"""Where embedded mode keeps its data.

As root the data stands in /var/lib/llmchatlinker, open for passing through, since PostgreSQL runs
under a system user that has to reach its own folder in there; for anybody else it is a private
folder of theirs.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile

import platformdirs

from llmchatlinker.errors import StartFailed

VARIABLE = "LLMCHATLINKER_DATA_DIR"
ROOT_DATA_DIR = Path("/var/lib/llmchatlinker")

PRIVATE = 0o700
PASSABLE = 0o755


def data_dir() -> Path:
    """The folder for everything that embedded mode keeps; made if it is missing.

    In this order: ``LLMCHATLINKER_DATA_DIR``, for root /var/lib/llmchatlinker, the platform's
    folder for a user's data. Raises ``StartFailed`` when it can't be made.
    """
    chosen = os.environ.get(VARIABLE, "").strip()
    root = os.geteuid() == 0
    if chosen:
        path = Path(chosen).expanduser().absolute()
    elif root:
        path = ROOT_DATA_DIR
    else:
        path = platformdirs.user_data_path("llmchatlinker")
    make_dir(path, PASSABLE if root else PRIVATE)
    return path


def make_dir(path: Path, mode: int) -> None:
    """Make ``path`` with exactly ``mode``, and what is missing above it as ``data_dir`` would.

    What exists is not touched. Raises ``StartFailed`` when something stands in the way.
    """
    above = PASSABLE if os.geteuid() == 0 else PRIVATE
    missing = []
    folder = path
    while not folder.is_dir():
        missing.append(folder)
        if folder == folder.parent:
            break
        folder = folder.parent
    try:
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            # mkdir's own mode is cut by the umask, and a umask of 077 would lock the system user
            # out.
            folder.chmod(mode if folder == path else above)
    except OSError as error:
        raise StartFailed(
            f"The folder {folder} can't be made: {error.strerror}.",
            {"remedy": f"Make it yourself, or name another folder in {VARIABLE}."},
        ) from error


#: Bytes: a segment of PostgreSQL's log, which it needs whole before it can commit anything more.
ROOM = 16 * 1024 * 1024


def disk_trouble(folder: Path) -> str | None:
    """Why nothing can be written to ``folder``, in the system's words; None when it can be."""
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(bytes(ROOM))
            probe.flush()
    except OSError as error:
        return error.strerror or str(error)
    return None
