"""Hints and pushes, the worker's side: small messages straight into the clients' queues.

After an id is final, a *hint* tells its client so, and brings a small envelope along: who waits need
not look. What a response's followers get is a *push* (``streaming/pushing.py``). Best effort on purpose:
each is published without a confirm, by who has it where the broker takes it at once, else by one thread
from bounded queues that drop the oldest; there hints go first, and without their envelopes. Nothing here
raises or slows a stage; what is lost is found by the client's own slow look at the database, which stays
the truth.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Sized
from typing import Any, NamedTuple

from amqp import Message

from llmchatlinker.broker_publishing import Publishing
from llmchatlinker.celery_app import app
from llmchatlinker.outcomes import Ending
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Hints that wait to be published, at most; and bytes of the pushes that do.
WAITING = 10_000
PUSHED_BYTES = 16_777_216
#: Bytes that a socket takes at once where it takes anything.
AT_ONCE = 4096
#: Seconds before another try, after the broker was gone.
PAUSE = 1.0
#: The default exchange: straight into the queue that the key names, or nowhere.
_STRAIGHT = ""


class _Kind(NamedTuple):
    """A message's properties, and the same as the bytes that AMQP makes of them."""

    properties: dict[str, Any]
    packed: bytes


def _kind(**properties: Any) -> _Kind:
    properties["content_type"] = "application/json"
    return _Kind(properties, Message(**properties)._serialize_properties())


HINT = _kind()
#: What has somebody's words is transient, and thrown away when nobody has taken it for so many
#: milliseconds.
WORDS = _kind(expiration="30000", delivery_mode=1)

#: The queue, the body, and what it is.
Letter = tuple[str, bytes, _Kind]


class HintPublisher:
    """The connection, the queues and their thread; one per process."""

    def __init__(self) -> None:
        self._hints: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        self._pushes: deque[tuple[str, bytes]] = deque()
        self._pushed_bytes = 0
        self._in_hand: Letter | None = None
        self._some = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        #: Held by who publishes. The channel is None while there is no connection.
        self._wire = threading.Lock()
        self._channel: Any = None

    def hint(self, ending: Ending) -> None:
        """Tell everybody who waits for this id; returns at once."""
        if not ending.reply_to or get_settings().broker_is_embedded:
            return
        plain = json.dumps({"id": str(ending.instruction_id), "state": "SUCCESS"}).encode("ascii")
        body, kind = plain, HINT
        if ending.envelope is not None and ending.final_at is not None:
            # It is JSON already, as PostgreSQL has it: into the object, and not made anew.
            date = ending.final_at.isoformat()
            more = f', "date_done": "{date}", "result": {ending.envelope}}}'
            body, kind = plain[:-1] + more.encode(), WORDS
        for queue in ending.reply_to:
            if not self._at_once(self._hints, (queue, body, kind)):
                self._hints.append((queue, plain))
                self._wake()

    def send(self, queue: str, body: bytes) -> None:
        """Push this to who follows; returns at once."""
        if self._at_once(self._pushes, (queue, body, WORDS)):
            return
        with self._lock:
            self._pushes.append((queue, body))
            self._pushed_bytes += len(body)
            while self._pushed_bytes > PUSHED_BYTES:
                self._pushed_bytes -= len(self._pushes.popleft()[1])
        self._wake()

    def reconnect(self) -> None:
        """Publish what comes from now on by the settings of now."""
        with self._wire:
            self._channel = None  # its thread connects anew, once there is something to publish

    def _at_once(self, before: Sized, letter: Letter) -> bool:
        """Publish it here, unless others are ``before`` it: no thread has to be woken for it."""
        if before or len(letter[1]) > AT_ONCE or not self._wire.acquire(blocking=False):
            return False
        try:
            channel = self._channel
            if before or not isinstance(channel, Publishing) or not channel.takes_at_once():
                return False
            queue, body, kind = letter
            channel.write_bytes(_STRAIGHT, queue, kind.packed, body)
        except Exception as error:
            logger.debug("A hint or push can't be published just now: %r", error)
            self._channel = None  # for the thread to see
            return False
        finally:
            self._wire.release()
        return True

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
            with self._wire:
                # What could not be published goes first, once: it is why there is a new connection.
                letter, self._in_hand = self._in_hand, None
                if letter is not None:
                    _publish(channel, letter)
                self._channel = channel
            while True:
                while self._publish_next(channel):
                    pass
                self._some.wait()
                self._some.clear()

    def _publish_next(self, channel: Any) -> bool:
        """Whether there was a letter."""
        with self._wire:
            if self._channel is not channel:
                raise ConnectionError("publishing on it has failed")
            letter = self._next()
            if letter is None:
                return False
            try:
                _publish(channel, letter)
            except Exception:
                self._in_hand, self._channel = letter, None
                raise
            return True

    def _next(self) -> Letter | None:
        if self._hints:
            return *self._hints.popleft(), HINT
        with self._lock:
            if not self._pushes:
                return None
            queue, body = self._pushes.popleft()
            self._pushed_bytes -= len(body)
        return queue, body, WORDS


def _publish(channel: Any, letter: Letter) -> None:
    queue, body, kind = letter
    channel.basic_publish(Message(body, **kind.properties), exchange=_STRAIGHT, routing_key=queue)


_publisher = HintPublisher()


def hint(ending: Ending) -> None:
    """Tell everybody who waits for this id; returns at once and never raises."""
    _publisher.hint(ending)


def send(queue: str, body: bytes) -> None:
    """Push a message into a follower's queue; returns at once and never raises."""
    _publisher.send(queue, body)


def reconnect() -> None:
    """Let the next hint or push go to the broker of the settings as they are then."""
    _publisher.reconnect()


def _after_fork() -> None:
    global _publisher
    _publisher = HintPublisher()


os.register_at_fork(after_in_child=_after_fork)
