"""Steps of a worker's start that may come first of all. Workers ``--include`` it; see ``poison.py``."""

from __future__ import annotations

import sys
from typing import Any

from amqp.exceptions import NotFound
from celery import bootsteps
from celery.worker import consumer

from llmchatlinker.celery_app import app
from llmchatlinker.topology import dead_letter_queue

MODULE = __name__
SAID = "the dead-letter queue is"
FOUND, MISSING = f"{SAID} there", f"{SAID} missing"


class _Early(bootsteps.StartStopStep):
    """Says whether a message that is refused now would be kept."""

    requires = (consumer.Connection,)

    def start(self, c: Any) -> None:
        with c.connection.channel() as channel:
            try:
                dead_letter_queue.bind(channel).queue_declare(passive=True)
                print(FOUND, flush=True)
            except NotFound:
                print(MISSING, flush=True)


# Only in a worker that names this module. Several: Celery starts what needs the same in any order.
if any(MODULE in argument for argument in sys.argv):
    for number in range(10):
        app.steps["consumer"].add(type(f"Early{number}", (_Early,), {}))
