"""What was parked until some time goes on at that time: one thread per process that parks.

The rows are the truth, and their times PostgreSQL's. A process that parks something sets an alarm for
itself; if it dies before, the sweeper finds what is due. Whoever comes first takes it, and nobody twice.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time

from llmchatlinker.defects import log_defect
from llmchatlinker.errors import Unavailable

logger = logging.getLogger(__name__)

#: Seconds after an alarm's time: our clock may be a little faster than PostgreSQL's.
LATER = 0.02
#: Seconds until another try, when PostgreSQL was gone.
PAUSE = 1.0


class Alarms:
    """The thread and the times that it wakes at."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._times: list[float] = []
        self._thread: threading.Thread | None = None

    def set(self, seconds: float) -> None:
        """Look for what is due after so long."""
        with self._changed:
            heapq.heappush(self._times, time.monotonic() + seconds + LATER)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="alarms", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._times or (left := self._times[0] - time.monotonic()) > 0:
                    self._changed.wait(left if self._times else None)
                now = time.monotonic()
                while self._times and self._times[0] <= now:
                    heapq.heappop(self._times)
            try:
                release_due()
            except Unavailable:
                self.set(PAUSE)
            except Exception as error:
                log_defect(
                    logger, "What is due could not be sent on; the sweeper does it", error=error
                )


def release_due(*, slots: bool = False) -> int:
    """Send on what is due by the clock; how many. ``slots``: also what calls' ends have overlooked."""
    from llmchatlinker.after_commit import follow  # which sets alarms
    from llmchatlinker.db.sessions import database
    from llmchatlinker.settings import get_settings
    from llmchatlinker.units.due import release_due as release

    aftermath = database().run(
        lambda session: release(session, slots=slots), patience=get_settings().client_patience
    )
    follow(aftermath)
    return len(aftermath.released)


_current = Alarms()


def alarm(seconds: float) -> None:
    """Look for what is due after so many seconds."""
    _current.set(seconds)


def _after_fork() -> None:
    global _current
    _current = Alarms()


os.register_at_fork(after_in_child=_after_fork)
