"""A worker whose clock is wrong: libfaketime, loaded into its process alone, and told what to say.

Only the wall clock is faked. The monotonic one stays as it is, as on a machine whose clock somebody
sets, or a time server steps.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.servers.install import InstallError, find_faketime

MODULE = __name__
OFF = 600  # seconds
READ_AGAIN = 1  # seconds, after which libfaketime looks at its file once more


class WrongClock:
    """``environment``: what makes a process's clock wrong; ``step``: by how much, from now on."""

    def __init__(self, folder: Path) -> None:
        library = find_faketime()
        if library is None:
            raise InstallError("libfaketime is not installed: make faults does it.")
        self._file = folder / "clock"
        self.step(OFF)
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": str(READ_AGAIN),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead (behind, when negative)."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.replace(new, self._file)

    def seen(self) -> float:
        """By how many seconds the clock of such a process is ahead of this one's."""
        said = subprocess.run(
            [sys.executable, "-c", "import time; print(time.time())"],
            env=os.environ | self.environment,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        return float(said) - time.time()


def _sleep(seconds: Any) -> None:
    select.select([], [], [], seconds)


if "FAKETIME_TIMESTAMP_FILE" in os.environ:
    # libfaketime 0.9.10 takes the faked time off Python's absolute deadline by the monotonic clock, and
    # clock_nanosleep then refuses it (EINVAL) or sleeps for ten minutes.
    time.sleep = _sleep
