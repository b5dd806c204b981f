"""A bound in time for a statement, kept by the client: for a server that is alive and does not answer.

libpq waits for an answer for as long as TCP takes the server for alive, and the kernel of a server whose
processes are stopped goes on acknowledging. ``statement_timeout`` is kept by that server, and keepalives
and ``tcp_user_timeout`` ask its kernel. So one thread of the process looks at what is due, and shuts the
sockets down whose time is over: libpq then sees a connection that has ended.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

LOOK = 0.25  # seconds between two looks, while there is something to look at


class Bounds:
    """The bounds of a process. Its thread is made with the first one."""

    def __init__(self) -> None:
        self._open: dict[int, float] = {}  # a socket's descriptor, and when its time is over
        self._changed = threading.Condition()
        self._watched = False
        self._used = False
        self._idle = False

    @contextmanager
    def bounded(self, connection: Any, end: float) -> Iterator[None]:
        """Until ``end``, by the monotonic clock, the server of a psycopg2 ``connection`` may take."""
        # A descriptor of our own: libpq may close its one, and another socket get that number.
        descriptor = os.dup(connection.fileno())
        with self._changed:
            self._open[descriptor] = end
            self._used = True
            if not self._watched:
                self._watched = True
                threading.Thread(target=self._watch, name="database bounds", daemon=True).start()
            elif self._idle:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._open[descriptor]
                os.close(descriptor)

    def _watch(self) -> None:
        with self._changed:
            while True:
                # Not at once when there is nothing: to be woken for each statement would slow it.
                self._idle = not self._open and not self._used
                self._used = False
                self._changed.wait(None if self._idle else LOOK)
                self._idle = False
                for descriptor, end in self._open.items():
                    if time.monotonic() > end:
                        _cut(descriptor)


def _cut(descriptor: int) -> None:
    held = socket.socket(fileno=os.dup(descriptor))
    with held, suppress(OSError):
        held.shutdown(socket.SHUT_RDWR)


_bounds = Bounds()


def bounded(connection: Any, end: float) -> AbstractContextManager[None]:
    """``Bounds.bounded`` of this process."""
    return _bounds.bounded(connection, end)


def _after_fork() -> None:
    # A fork copies no threads, and its parent may have held the lock.
    global _bounds
    _bounds = Bounds()


os.register_at_fork(after_in_child=_after_fork)
