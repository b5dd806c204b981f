"""Takes messages off a queue before its owner does, who notices nothing of it.

A consumer of a higher priority gets every message for as long as it keeps up
(https://www.rabbitmq.com/docs/consumer-priority).
"""

from __future__ import annotations

import threading
from typing import Any, Self

from kombu import Connection

DRAIN = 0.1  # seconds
START = 60.0


class Thief:
    """A context manager with a thread and a connection of its own. ``taken``: how many so far."""

    def __init__(self, url: str, queue: str) -> None:
        self.taken = 0
        self._url = url
        self._queue = queue
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thief")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START):
            raise RuntimeError(f"Nobody can consume {self._queue}.")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with Connection(self._url) as connection:
            connection.default_channel.basic_consume(
                self._queue,
                callback=self._take,
                no_ack=True,
                consumer_tag="thief",
                arguments={"x-priority": 10},
            )
            self._ready.set()
            while not self._over.is_set():
                try:
                    connection.drain_events(timeout=DRAIN)
                except TimeoutError:
                    continue

    def _take(self, _: Any) -> None:
        self.taken += 1
