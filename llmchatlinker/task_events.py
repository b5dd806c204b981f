"""A worker's events of tasks: noted when they happen, and made into events when they are published.

Overridden of ``celery/events/dispatcher.py``: ``send`` makes each event where it happens, in the way of
the next message and of the stage's own thread, and publishes after every 24th. ``consumer.py`` publishes
several times a second anyway.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

from celery.app.events import Events as CeleryEvents
from celery.events import EventDispatcher

#: As many are published at once, whatever the time.
MOST = 1000


class Dispatcher(EventDispatcher):
    """See the module's docstring."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._noted: deque[tuple[str, dict[str, Any]]] = deque()
        self._making = threading.Lock()
        super().__init__(*args, **options)
        self.buffer_limit = sys.maxsize

    def send(self, type: str, *args: Any, **fields: Any) -> None:
        """Celery's; what it would collect is noted, with the time."""
        if "task" not in self.buffer_group or not type.startswith("task-"):
            super().send(type, *args, **fields)
        elif self.enabled:
            self._noted.append((type, {"timestamp": time.time()} | fields))
            if len(self._noted) >= MOST:
                self.flush()

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Publish what was noted, too."""
        if groups:
            with self._making:
                while self._noted:
                    type, fields = self._noted.popleft()
                    super().send(type, **fields)
        super().flush(errors, groups)


class Events(CeleryEvents):
    """The app's events."""

    dispatcher_cls = f"{__name__}:Dispatcher"
