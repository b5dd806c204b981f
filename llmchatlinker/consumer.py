"""The worker's consumer: Celery's, but what can't be understood is dead-lettered without its text.

Overridden of ``celery/worker/consumer/consumer.py``:

* ``on_decode_error`` acknowledges what it can't decode, and logs its body;
* ``connection_for_write`` gives events a connection with publisher confirms, like all others. Its
  socket is then read by the slot that waits for a confirm and by the main loop, which has registered
  it too (``celery/worker/consumer/events.py``): under load the worker stood still until RabbitMQ
  missed its heartbeats;
* ``on_unknown_message``, ``on_unknown_task``, ``on_invalid_task`` reject, but log body and headers;
* ``on_send_event_buffered`` publishes a message of events for every single one of them; here they
  are collected, which saves a fifth of a worker's time;
* the step ``DelayedDelivery`` declares 28 queues for countdowns on quorum queues: no instruction is
  ever published with a countdown, waiting is a row in the database (``delays.py`` has the rest).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import bootsteps, signals
from celery.exceptions import NotRegistered
from celery.utils.objects import Bunch
from celery.worker import consumer as celery_consumer

from llmchatlinker import health
from llmchatlinker.message_check import what_is_wrong
from llmchatlinker.quiet_consumer import OutageWatch, QuietConsumer
from llmchatlinker.stopping import stopping
from llmchatlinker.topology import dead_letter_queue

logger = logging.getLogger(__name__)

#: Seconds for which events are collected, if there are not enough for a message before.
EVENTS_INTERVAL = 0.2


class EventFlush(bootsteps.StartStopStep):
    """Publishes the collected events of tasks, several times a second."""

    requires = (celery_consumer.Events, celery_consumer.Tasks)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self._entry: Any = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """From now on, in the worker's main loop."""
        if c.hub is not None:  # without one nothing is collected
            self._entry = c.timer.call_repeatedly(EVENTS_INTERVAL, c._flush_events)

    def stop(self, c: Any) -> None:
        """The last ones; after a broken connection they go out with the next one's first."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None
            with suppress(*c.connection_errors):
                c._flush_events()


class Heartbeat(bootsteps.StartStopStep):
    """Touches the file that a health probe looks at, while the worker is connected."""

    # It is ready when it hears remote control, too: an order would be lost on one that is not yet bound.
    requires = (celery_consumer.Tasks, celery_consumer.Control)

    def __init__(self, c: Any, **kwargs: Any) -> None:
        self._entry: Any = None
        super().__init__(c, **kwargs)

    def start(self, c: Any) -> None:
        """Touch it now and every few seconds."""
        if health.heartbeat_file() is not None:
            health.touch()
            self._entry = c.timer.call_repeatedly(health.INTERVAL, health.touch)

    def stop(self, c: Any) -> None:
        """Let it grow old."""
        if self._entry is not None:
            self._entry.cancel()
            self._entry = None


class Consumer(QuietConsumer):
    """See the module's docstring."""

    class Blueprint(celery_consumer.Consumer.Blueprint):
        """Celery's steps, less one, plus three."""

        default_steps = [
            step
            for step in celery_consumer.Consumer.Blueprint.default_steps
            if not str(step).endswith("DelayedDelivery")
        ] + [EventFlush, Heartbeat, OutageWatch]

    def connect(self) -> Any:
        """Celery's, and where the undeliverable goes is declared before any step can take a message.

        At every (re)connection: the broker may have been replaced. Steps that don't require each other
        start in any order (``celery/bootsteps.py``), so a step of its own would come too late at times.
        """
        # Known already, so that Celery closes it after an error.
        self.connection = super().connect()
        if self.connection.transport.driver_type == "amqp":
            with self.connection.channel() as channel:
                dead_letter_queue.bind(channel).declare()
        return self.connection

    def connection_for_write(self, url: str | None = None, heartbeat: float | None = None) -> Any:
        """The connection that events are published on: without confirms, see above.

        Events are for looking at: what they tell is in the rows as well.
        """
        connection = self.app.connection_for_write(
            url, heartbeat=heartbeat, transport_options={"confirm_publish": False}
        )
        return self.ensure_connected(connection)

    def on_send_event_buffered(self) -> None:
        """EventFlush sees to it."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """Celery's, behind a look at the message (``message_check.py`` says why)."""
        handle: Callable[[Any], Any] = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            if stopping.begun.is_set():
                return None  # not acknowledged: another worker gets it when this one is gone
            problem = what_is_wrong(message)
            return handle(message) if problem is None else self._refuse(message, problem)

        return on_task_received

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Reject to the dead-letter queue."""
        self._refuse(message, f"can't be decoded ({type(exc).__name__})")

    def on_unknown_message(self, body: Any, message: Any) -> None:
        """A message that is no task's."""
        self._refuse(message, "is no task")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task whose message makes no sense."""
        self._refuse(message, f"is no valid task ({type(exc).__name__})")
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        """A task that nobody registered here: its id becomes final, with an error."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        self._refuse(message, "is for a task that is not registered here")
        task_id = headers.get("id")
        if isinstance(task_id, str):
            request = Bunch(chord=None, root_id=headers.get("root_id"), errbacks=None, chain=None)
            self.app.backend.mark_as_failure(task_id, NotRegistered("task"), request=request)
        signals.task_unknown.send(
            sender=self, message=message, exc=exc, name=headers.get("task"), id=task_id
        )

    def _refuse(self, message: Any, why: str) -> None:
        body = message.body
        size = len(body) if isinstance(body, bytes | bytearray | memoryview | str) else 0
        logger.error(
            "A message from queue %r %s: dead-lettered (%d bytes, %s)",
            (message.delivery_info or {}).get("routing_key"),
            why,
            size,
            str(message.content_type)[:100],
        )
        if not _needs_no_answer(message):
            message.reject_log_error(logger, self.connection_errors)


def _needs_no_answer(message: Any) -> bool:
    """Whether it came as acknowledged, as remote control's do: RabbitMQ closes the channel of whoever
    rejects one. kombu looks at that for ``ack``, and not for ``reject`` (``kombu/message.py``).
    """
    tag = (message.delivery_info or {}).get("consumer_tag")
    return tag in (message.channel.no_ack_consumers or ())
