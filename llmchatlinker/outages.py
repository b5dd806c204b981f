"""What the log has of a server's outage: a line when it begins, and one when it is over.

However many threads run into it, however long it lasts, and also where the server answers in between:
a full disk takes reads and no writes, a pool that is used up lets some through. So it is over when the
server has answered, and nothing has failed any more, for ``QUIET`` seconds.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from llmchatlinker.settings import get_settings, without_password

#: Seconds; longer than the pauses between two tries of whoever waits for the server.
QUIET = 10.0


class Outage:
    """Of one server. ``name``: what and where it is, for the log."""

    def __init__(self, name: str, logger: logging.Logger) -> None:
        self._name = name
        self._logger = logger
        self._lock = threading.Lock()
        self._began: float | None = None
        #: When it first answered after what failed last.
        self._answered: float | None = None

    def failed(self, reason: str) -> None:
        """Something failed because of the server."""
        with self._lock:
            now = time.monotonic()
            self._end_where_it_is_over(now)  # it may have been, while nobody asked
            self._answered = None
            if self._began is None:
                self._began = now
                self._logger.warning("%s does not answer, waiting for it: %s", self._name, reason)

    def answered(self) -> None:
        """The server did what it was asked; costs nothing while there is no outage."""
        if self._began is not None:
            with self._lock:
                now = time.monotonic()
                self._end_where_it_is_over(now)
                if self._answered is None:
                    self._answered = now

    def _end_where_it_is_over(self, now: float) -> None:
        if self._began is None or self._answered is None or now - self._answered < QUIET:
            return
        self._logger.warning(
            "%s answers again after %.1f s", self._name, self._answered - self._began
        )
        self._began = self._answered = None


#: What is raised where the broker is gone, or refuses for the moment.
BROKER_ERRORS = (OperationalError, AMQPError, OSError)


def broker_failed(error: BaseException) -> None:
    """The broker could not be reached, or has ended a connection."""
    said = str(error).strip().splitlines()
    _broker().failed(said[0] if said else type(error).__name__)


def broker_answered() -> None:
    """The broker has done what it was asked."""
    if _broker_outage is not None:
        _broker_outage.answered()


def _broker() -> Outage:
    global _broker_outage
    with _making:
        if _broker_outage is None:
            address = without_password(get_settings().broker_url)
            _broker_outage = Outage(f"The broker at {address}", logging.getLogger(__name__))
        return _broker_outage


_broker_outage: Outage | None = None
_making = threading.Lock()


def _after_fork() -> None:
    global _broker_outage, _making
    _broker_outage, _making = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
