"""Celery's consumer, with two lines in the log for an outage of the broker (``outages.py``).

Celery says so at every try to connect, and once more with a traceback for each message that it can't
acknowledge on a connection that is gone (``celery/worker/consumer/consumer.py``, ``kombu/message.py``).
Those messages come again, which every stage expects.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

from celery import bootsteps
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer as celery_consumer
from celery.worker.state import maybe_shutdown

from llmchatlinker.message_check import OURS
from llmchatlinker.outages import BROKER_ERRORS, broker_answered, broker_failed

#: Celery's own lines about it, as they stand in its code, by the logger that has them, and whether they
#: speak of now: what can't be acknowledged came on a connection that may have gone long ago.
SAID_BY_CELERY = {
    "celery.worker.consumer.consumer": {"%s (%r)": True},
    "celery.worker.request": {
        "Couldn't ack %r, reason:%r": False,
        "Couldn't reject %r, reason: %r": False,
    },
    "celery.app.amqp": {
        "Retrying refused callback publish for %r (%s/%s, waiting %ss): %r": True,
        "Giving up refused callback publish for %r: %r": True,
    },
}
#: Seconds between two looks whether an outage is over.
LOOK = 1.0


class _Said(logging.Filter):
    """Keeps out of the log what the outage's own lines say."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        is_of_now = SAID_BY_CELERY[record.name].get(record.msg)
        error = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        if is_of_now is None or not isinstance(error, BROKER_ERRORS):
            return True
        if is_of_now:
            broker_failed(error)
        return False


class _HandOffs(logging.Filter):
    """Keeps out of the log that a stage could not be handed on: the sweeper does it, once it can."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        told = record.args if isinstance(record.args, dict) else {}
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not (isinstance(error, BROKER_ERRORS) and str(told.get("name")).startswith(OURS))


_said = _Said()
_hand_offs = _HandOffs()


class OutageWatch(bootsteps.StartStopStep):
    """Sees that the broker is there: the worker takes messages."""

    requires = (celery_consumer.Tasks,)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self._entry: Any = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """From now on."""
        self._entry = c.timer.call_repeatedly(LOOK, broker_answered)

    def stop(self, c: Any) -> None:
        """Until it is connected again."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


class QuietConsumer(celery_consumer.Consumer):
    """See the module's docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        for name in SAID_BY_CELERY:
            logging.getLogger(name).addFilter(_said)
        logging.getLogger("celery.app.trace").addFilter(_hand_offs)
        super().__init__(*args, **kwargs)

    def ensure_connected(self, conn: Any) -> Any:
        """Celery's, for a worker that waits as long as it takes."""
        connected = conn.ensure_connection(
            lambda error, interval: broker_failed(error),
            self.app.conf.broker_connection_max_retries,
            callback=maybe_shutdown,
        )
        self.first_connection_attempt = False
        return connected

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """It went while the worker was connecting."""
        broker_failed(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """It went."""
        broker_failed(exc)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
