"""A scripted provider that counts how many calls it has at once."""

from __future__ import annotations

import threading

from tests.servers import scripts


class Watch:
    """Answers each call after so many ``seconds``; ``most``: calls that it ever had at once.

    A call is over before it is answered: whoever has the answer may have made the next one.
    """

    def __init__(self, seconds: float = 0.05) -> None:
        self.most = 0
        self._seconds = seconds
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, exchange: scripts.Exchange) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        exchange.pause(self._seconds)
        with self._lock:
            self._now -= 1
        scripts.echo(exchange)
