"""Hints and pushes, the client's side: a queue and a thread for who waits, and for who follows.

The queue outlives a short absence of its consumer (``x-expires``) and a restart of the broker, and is
bounded: when it overflows the oldest messages go, and the slow look at the database finds what was in
them. Who follows has a queue of his own, so that pushes crowd out no hints.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from typing import Any

from kombu import Queue

from llmchatlinker.celery_app import app
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Seconds that the queue lives without a consumer, and messages and bytes that it holds at most.
EXPIRES = 600.0
LENGTH = 10_000
BYTES = 33_554_432
#: Seconds: how long one look at the socket takes, and between two tries to connect.
DRAIN = 1.0
PAUSE = 0.5
LONGEST_PAUSE = 5.0


class Replies:
    """Consumes a queue of this process. In its thread, it calls ``on_hint`` with each id that is
    hinted and the whole hint, ``on_pushes`` with what is pushed, and ``on_connect`` when messages may
    have been lost.
    """

    def __init__(
        self,
        on_hint: Callable[[str, dict[str, Any]], None],
        on_connect: Callable[[], None],
        on_pushes: Callable[[list[Any]], None] | None = None,
    ) -> None:
        kind = "reply" if on_pushes is None else "events"
        self.queue_name = f"llmchatlinker.{kind}.{uuid.uuid4()}"
        self.connected = False
        self._on_hint = on_hint
        self._on_pushes = on_pushes
        self._on_connect = on_connect
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start consuming, once; returns at once. Nothing to consume in embedded mode."""
        if self._thread is not None or get_settings().broker_is_embedded:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="replies", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop consuming; the queue expires by itself."""
        self._stopped.set()

    def _run(self) -> None:
        pause = PAUSE
        while not self._stopped.is_set():
            try:
                with app.connection_for_read(heartbeat=30) as connection:
                    connection.ensure_connection(max_retries=len(get_settings().broker_addresses))
                    self._consume(connection)
                    return
            except Exception as error:
                if self.connected:
                    logger.warning("The broker is gone; results are looked up until it is back")
                    pause = PAUSE
                self.connected = False
                logger.debug("No reply queue: %r", error)
                self._stopped.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _consume(self, connection: Any) -> None:
        queue = Queue(
            self.queue_name,
            durable=True,
            queue_arguments={
                "x-expires": int(EXPIRES * 1000),
                "x-max-length": LENGTH,
                "x-max-length-bytes": BYTES,
            },
        )
        channel = connection.default_channel
        bound = queue(channel)
        bound.queue_declare()
        bound.consume(consumer_tag="hints", callback=self._receive, no_ack=True)
        self.connected = True
        self._on_connect()  # what was hinted meanwhile is lost: look for all of it
        while not self._stopped.is_set():
            try:
                connection.drain_events(timeout=DRAIN)
            except TimeoutError:
                connection.heartbeat_check()

    def _receive(self, message: Any) -> None:
        try:
            document = json.loads(message.body)
        except ValueError:
            return  # not one of ours
        if isinstance(document, list) and self._on_pushes is not None:
            self._on_pushes(document)
        elif isinstance(document, dict) and isinstance(document.get("id"), str):
            self._on_hint(document["id"], document)
