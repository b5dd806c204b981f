"""How a worker stops: it takes nothing new, lets its work finish for a while, and hands back the rest.

What is overridden of Celery, and why (``celery/apps/worker.py``, ``celery/concurrency/thread.py``): on
threads, SIGTERM waits for running tasks without a limit and without a main loop that would send their
acknowledgements; a second SIGTERM does nothing; SIGQUIT raises NotImplementedError. Here

* the first SIGTERM (or Ctrl-C) stops consuming, while the main loop goes on: what finishes within
  ``stop_timeout`` seconds is acknowledged as ever;
* when they are over, at the second signal, and at SIGQUIT, the rest is handed back: calls of providers
  are broken off and closed in the ledger, and the process ends. Their messages were never
  acknowledged, so the broker gives them to another worker.

SIGKILL loses nothing either: then the leases of the calls run out first.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import Any

from celery import bootsteps, platforms
from celery.worker import state

from llmchatlinker.providers.calls import HANDED_BACK, abort_all
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Seconds that the ledger gets for what is handed back, and between two looks at what still runs.
LAST_WORDS = 3.0
PAUSE = 0.05


class Stopping:
    """A worker's stop, from the first signal to the end of the process."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self._now = threading.Event()
        self._given_back = 0
        self._lock = threading.Lock()

    def begin(self, worker: Any, *, at_once: bool) -> None:
        """A signal came; returns at once. The second one, or ``at_once``, waits for nothing."""
        if at_once or self.begun.is_set():
            self._now.set()
        if not self.begun.is_set():
            self.begun.set()
            threading.Thread(target=self._stop, args=(worker,), name="stop", daemon=True).start()

    def give_back(self) -> None:
        """Of a stage whose work is handed back: its message must not be acknowledged. Never returns."""
        with self._lock:
            self._given_back += 1
        threading.Event().wait()

    def _stop(self, worker: Any) -> None:
        timeout = get_settings().stop_timeout
        logger.warning(
            "Stopping: %d stages get %.0f s to finish; a second signal hands them back at once",
            len(state.reserved_requests),
            0 if self._now.is_set() else timeout,
        )
        _stop_consuming(worker)
        end = time.monotonic() + timeout
        while state.reserved_requests and time.monotonic() < end and not self._now.is_set():
            self._now.wait(PAUSE)
        if not state.reserved_requests:
            # Seen by the main loop, which ends the worker in good order. It must not take for ever
            # either: on a broken connection Celery forgets its requests while their threads go on.
            state.should_stop = os.EX_OK
            self._now.wait(max(0.0, end - time.monotonic()) + LAST_WORDS)
        self._hand_back()

    def _hand_back(self) -> None:
        left = len(state.reserved_requests)
        end = time.monotonic() + LAST_WORDS
        while len(state.reserved_requests) > self._given_back and time.monotonic() < end:
            abort_all(HANDED_BACK)  # each time: a call may begin just now
            time.sleep(PAUSE)
        logger.warning(
            "Stopped: %d stages are handed back", min(left, len(state.reserved_requests))
        )
        logging.shutdown()
        # Not an exit: Python would wait for the pool's threads, and they wait for ever.
        os._exit(os.EX_OK)


def _stop_consuming(worker: Any) -> None:
    consumer = worker.consumer
    tasks = getattr(consumer, "task_consumer", None)
    if tasks is not None:
        consumer.call_soon(_cancel, tasks)  # in the main loop: the channel is its own


def _cancel(tasks: Any) -> None:
    try:
        tasks.cancel()
    except Exception as error:  # the connection is gone, and the consumer with it
        logger.debug("Nothing to cancel: %r", error)


stopping = Stopping()


class StopStep(bootsteps.StartStopStep):
    """Takes over the signals that stop a worker, after Celery has installed its own."""

    def start(self, worker: Any) -> None:
        """In the main thread, before the consumer starts."""
        for name in ("SIGTERM", "SIGINT"):
            platforms.signals[name] = lambda *_: stopping.begin(worker, at_once=False)
        platforms.signals["SIGQUIT"] = lambda *_: stopping.begin(worker, at_once=True)
