"""A disk of one's own, a file behind a loop device, that can be filled and can become read-only.

Needs root, and Linux: ext4 makes itself read-only when it is told of an error, as it does on a disk
that breaks, and the files that are open then can't be written to any more. A ``mount -o remount,ro``
would be refused as long as one is open.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

SIZE = 400 * 1024 * 1024
BLOCK = 1024 * 1024


class DiskFailed(Exception):
    """The disk could not be made; the message says why."""


class Disk:
    """A context manager. ``path``: where it is mounted."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "disk"
        self._image = folder / "disk.img"
        self._filling = self.path / "filling"

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise DiskFailed("Only root can mount a disk: run this scenario as root.")
        self.path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(SIZE)
        # Without a reserve for root, so that a full disk is full for everybody.
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self.mount()
        self.path.chmod(0o755)
        return self

    def __exit__(self, *_: object) -> None:
        # What was killed may hold it for another moment: then it goes with that.
        with suppress(DiskFailed):
            _run("umount", "--lazy", str(self.path))
        self._image.unlink(missing_ok=True)

    def mount(self) -> None:
        """Bring it up."""
        options = "loop,errors=remount-ro"
        _run("mount", "-t", "ext4", "-o", options, str(self._image), str(self.path))

    def fill(self) -> None:
        """Leave not one byte."""
        with self._filling.open("wb", buffering=0) as file:
            for size in (BLOCK, 1024):
                with suppress(OSError):
                    while file.write(bytes(size)) == size:
                        pass

    def free(self) -> None:
        """The room is back."""
        self._filling.unlink(missing_ok=True)

    def break_down(self) -> None:
        """It becomes read-only, whatever is open on it."""
        device = _run("findmnt", "-n", "-o", "SOURCE", str(self.path)).strip()
        Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")

    def mend(self) -> None:
        """It can be written to again; nothing may be open on it."""
        _run("umount", str(self.path))
        self.mount()


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise DiskFailed(f"There is no {command[0]} here.") from None
    if done.returncode != 0:
        raise DiskFailed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
