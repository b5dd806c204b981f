"""Sees to it that every message is delivered twice: the second time as a copy, at once or later.

A queue beside the product's gets a copy of all that is published, and what is in it goes to the queue
that the original went to.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
import time
from contextlib import suppress
from typing import Any, Self

from amqp.basic_message import Message
from kombu import Connection

from llmchatlinker.topology import EXCHANGE

QUEUE = "faults.copies"
DRAIN = 0.05  # seconds
LATEST = 1.0
START = 60.0


class Copier:
    """A context manager with a thread and a connection of its own. ``copied``: how many so far."""

    def __init__(self, url: str) -> None:
        self.copied = 0
        self._url = url
        self._later: list[tuple[float, int, str, Message]] = []
        self._numbers = itertools.count()
        self._random = random.Random(0)
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="copier")

    @property
    def pending(self) -> int:
        """Copies that are still to be delivered."""
        return len(self._later)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START):
            raise RuntimeError("Nobody can copy messages.")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with Connection(self._url) as connection:
            channel = connection.default_channel
            channel.queue_declare(QUEUE, auto_delete=True)
            channel.queue_bind(QUEUE, EXCHANGE, "#")
            channel.basic_consume(QUEUE, callback=self._take, no_ack=True)
            self._ready.set()
            while not self._over.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=DRAIN)
                while self._later and self._later[0][0] < time.monotonic():
                    _, _, queue, copy = heapq.heappop(self._later)
                    channel.basic_publish(copy, "", queue)
                    self.copied += 1

    def _take(self, message: Any) -> None:
        when = time.monotonic() + self._random.choice((0.0, self._random.uniform(0, LATEST)))
        copy = Message(message.body, **message.properties)
        entry = (when, next(self._numbers), message.delivery_info["routing_key"], copy)
        heapq.heappush(self._later, entry)
