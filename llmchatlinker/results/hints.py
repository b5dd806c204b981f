"""Hints and pushes, the worker's side: small messages straight into the clients' queues.

After an id is final, a *hint* tells its client to look. What a response's followers get is a *push*
(``streaming/pushing.py``). Best effort on purpose: one thread publishes both without a confirm, from
bounded queues that drop the oldest; hints go first. Nothing here raises or slows a stage; what is lost
is found by the client's own slow look at the database, which stays the truth.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from typing import Any

from llmchatlinker.celery_app import app
from llmchatlinker.outcomes import Ending
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Hints that wait to be published, at most; and bytes of the pushes that do.
WAITING = 10_000
PUSHED_BYTES = 16_777_216
#: Milliseconds after which a push that nobody took is thrown away; transient.
PUSH = {"expiration": "30000", "delivery_mode": 1}
HINT: dict[str, Any] = {}
#: Seconds before another try, after the broker was gone.
PAUSE = 1.0

#: The queue, the body, and the message's properties.
Letter = tuple[str, bytes, dict[str, Any]]


class HintPublisher:
    """The thread and its queues; one per process."""

    def __init__(self) -> None:
        self._hints: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        self._pushes: deque[tuple[str, bytes]] = deque()
        self._pushed_bytes = 0
        self._in_hand: Letter | None = None
        self._some = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def hint(self, ending: Ending) -> None:
        """Tell everybody who waits for this id; returns at once."""
        if not ending.reply_to or get_settings().broker_is_embedded:
            return
        body = json.dumps({"id": str(ending.instruction_id), "state": "SUCCESS"}).encode("ascii")
        for queue in ending.reply_to:
            self._hints.append((queue, body))
        self._wake()

    def send(self, queue: str, body: bytes) -> None:
        """Push this to who follows; returns at once."""
        with self._lock:
            self._pushes.append((queue, body))
            self._pushed_bytes += len(body)
            while self._pushed_bytes > PUSHED_BYTES:
                self._pushed_bytes -= len(self._pushes.popleft()[1])
        self._wake()

    def _wake(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                    self._thread.start()
        self._some.set()

    def _run(self) -> None:
        while True:
            tried_at = time.monotonic()
            try:
                self._publish_for_ever()
            except Exception as error:
                # The worker's own connection reports the outage; hints wait, and old ones go.
                logger.debug("Hints can't be published just now: %r", error)
                if time.monotonic() - tried_at < PAUSE:
                    threading.Event().wait(PAUSE)

    def _publish_for_ever(self) -> None:
        # No heartbeats: nobody would answer them while there is nothing to publish.
        with app.connection_for_write(
            heartbeat=0, transport_options={"confirm_publish": False}
        ) as connection:
            channel: Any = connection.default_channel
            # What could not be published goes first, once: it is why there is a new connection.
            again = self._in_hand is not None
            letter, self._in_hand = self._in_hand or self._next(), None
            while True:
                while letter is not None:
                    queue, body, properties = letter
                    message = channel.prepare_message(
                        body, content_type="application/json", properties=properties
                    )
                    try:
                        # The default exchange: straight into the queue of that name, or nowhere.
                        channel.basic_publish(message, exchange="", routing_key=queue)
                    except Exception:
                        self._in_hand = None if again else letter
                        raise
                    letter, again = self._next(), False
                self._some.wait()
                self._some.clear()
                letter = self._next()

    def _next(self) -> Letter | None:
        if self._hints:
            return *self._hints.popleft(), HINT
        with self._lock:
            if not self._pushes:
                return None
            queue, body = self._pushes.popleft()
            self._pushed_bytes -= len(body)
        return queue, body, PUSH


_publisher = HintPublisher()


def hint(ending: Ending) -> None:
    """Tell everybody who waits for this id; returns at once and never raises."""
    _publisher.hint(ending)


def send(queue: str, body: bytes) -> None:
    """Push a message into a follower's queue; returns at once and never raises."""
    _publisher.send(queue, body)


def _after_fork() -> None:
    global _publisher
    _publisher = HintPublisher()


os.register_at_fork(after_in_child=_after_fork)
