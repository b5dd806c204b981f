"""Looks at every envelope again and again, from when its id became final: it must never change."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Self

import psycopg2

from benchmarks.servers import Place

PAUSE = 0.5  # seconds between two looks
SHARE = 0.1  # of the time, at most, that looking takes: a large round has many envelopes

_FINAL = """
    SELECT CAST(id AS text), md5(CAST(outcome AS text)), final_at
      FROM instructions WHERE final_at IS NOT NULL AND seq > %s
"""


class Observer:
    """A context manager, with a thread and a connection of its own. ``after``: the last seq before.

    ``changed``: ids whose envelope, or whose time of becoming final, was another one later.
    """

    def __init__(self, place: Place, after: int) -> None:
        self.changed: set[str] = set()
        self.seen: dict[str, tuple[object, ...]] = {}
        self._place = place
        self._after = after
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        pause = PAUSE
        while not self._over.wait(pause):
            began = time.monotonic()
            # While PostgreSQL is broken there is nothing to be seen.
            with contextlib.suppress(psycopg2.Error):
                self.look()
            pause = max(PAUSE, (time.monotonic() - began) / SHARE)

    def look(self) -> None:
        """Once."""
        for known, *now in self._place.sql(_FINAL, self._after):
            if self.seen.setdefault(known, tuple(now)) != tuple(now):
                self.changed.add(known)
