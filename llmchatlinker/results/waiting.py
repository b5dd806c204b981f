"""How a client waits: by looking, at growing intervals, for all its ids in one query.

This is the seam for wake-ups: whatever wakes a waiter earlier replaces ``pause`` and nothing else,
because the database stays the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from llmchatlinker.settings import get_settings

GROWTH = 1.5


class Polling:
    """Pauses between two looks at the database. ``fixed``: seconds, instead of growing."""

    def __init__(self, timeout: float | None, fixed: float | None = None) -> None:
        settings = get_settings()
        self._end = None if timeout is None else time.monotonic() + timeout
        self._interval = settings.poll_interval if fixed is None else fixed
        self._longest = settings.poll_interval_max if fixed is None else fixed

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._end is not None and time.monotonic() >= self._end

    def pause(self) -> None:
        """Wait for the next look, but not past the end."""
        seconds = self._interval
        if self._end is not None:
            seconds = min(seconds, max(0.0, self._end - time.monotonic()))
        time.sleep(seconds)
        self._interval = min(self._interval * GROWTH, self._longest)


def looks(
    timeout: float | None, interval: float | None, on_interval: Callable[[], object] | None
) -> Iterator[bool]:
    """Yield once per look; the value says whether it is the last one."""
    polling = Polling(timeout, interval)
    while True:
        last = polling.is_over
        yield last
        if last:
            return
        if on_interval is not None:
            on_interval()
        polling.pause()
