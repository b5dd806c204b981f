"""Hints, the worker's side: after an id is final, a small message tells its client to look.

Best effort on purpose: a hint is published by a thread of its own without a confirm, from a bounded
queue that drops the oldest. It never raises and never slows a stage; what is lost is found by the
client's own slow look at the database, which stays the truth.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from typing import Any

from llmchatlinker.celery_app import app
from llmchatlinker.outcomes import Ending
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Hints that wait to be published, at most.
WAITING = 10_000
#: Seconds before another try, after the broker was gone.
PAUSE = 1.0


class HintPublisher:
    """The thread and its queue; one per process."""

    def __init__(self) -> None:
        self._hints: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
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
        if self._thread is None or not self._thread.is_alive():
            self._start()
        self._some.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="hints", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                self._publish_for_ever()
            except Exception as error:
                # The worker's own connection reports the outage; hints wait, and old ones go.
                logger.debug("Hints can't be published just now: %r", error)
                threading.Event().wait(PAUSE)

    def _publish_for_ever(self) -> None:
        # No heartbeats: nobody would answer them while there is nothing to publish.
        with app.connection_for_write(
            heartbeat=0, transport_options={"confirm_publish": False}
        ) as connection:
            channel: Any = connection.default_channel
            while True:
                self._some.wait()
                self._some.clear()
                while self._hints:
                    queue, body = self._hints.popleft()
                    message = channel.prepare_message(body, content_type="application/json")
                    # The default exchange: straight into the queue of that name, or nowhere.
                    channel.basic_publish(message, exchange="", routing_key=queue)


_publisher = HintPublisher()


def hint(ending: Ending) -> None:
    """Tell everybody who waits for this id; returns at once and never raises."""
    _publisher.hint(ending)


def _forget() -> None:
    global _publisher
    _publisher = HintPublisher()  # a fork copies no threads


os.register_at_fork(after_in_child=_forget)
