"""Calls under way, each of which another thread can break off by closing its connection.

``requests`` knows no timeout for a whole exchange: its read timeout starts anew with every byte, in
the headers as well as in the body. So one thread per process watches all calls against the clock.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

_here = threading.local()


class Call:
    """One exchange with a provider. ``abort`` may come from any thread, at any time."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.aborted = False
        #: It was broken off because nobody wants its answer any longer.
        self.cancelled = False
        self.ended = False
        self._socket: Any = None
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    def uses(self, connected: Any) -> None:
        """The call now depends on this socket."""
        with self._lock:
            self._socket = connected
            if self.aborted:
                _shut_down(connected)

    def end(self) -> None:
        """It is over: its connection goes back to the pool and is nobody's to close."""
        with self._lock:
            self.ended = True
            self._socket = None

    def cancel(self) -> None:
        """Break it off because nobody wants its answer any longer."""
        self.cancelled = True
        self.abort()

    def abort(self) -> None:
        """Close the connection: whoever reads from it gets an end or an error at once."""
        with self._lock:
            if not self.ended:
                self.aborted = True
                _shut_down(self._socket)


def _shut_down(connected: Any) -> None:
    if connected is not None:
        with suppress(OSError):  # closed already
            connected.shutdown(socket.SHUT_RDWR)


@contextmanager
def under_way(current: Call, seconds: float) -> Iterator[Call]:
    """The call is made by this thread now, and is broken off after that time."""
    _here.call = current
    _watchdog.watch(current, seconds)
    try:
        yield current
    finally:
        _here.call = None
        current.end()


class _Noted:
    """A connection that tells the thread's call which socket it depends on."""

    sock: Any

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # of HTTPConnection, beside this class
        self._note()

    def putrequest(self, *args: Any, **kwargs: Any) -> None:
        self._note()  # a pooled connection is connected already
        super().putrequest(*args, **kwargs)  # type: ignore[misc]

    def _note(self) -> None:
        current: Call | None = getattr(_here, "call", None)
        if current is not None and self.sock is not None:
            current.uses(self.sock)


class _PlainConnection(_Noted, HTTPConnection):
    pass


class _TlsConnection(_Noted, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class CallAdapter(HTTPAdapter):
    """requests' adapter, with connections that can be broken off."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """The same pools, of our connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}


class _Watchdog:
    """One thread that breaks off what takes too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Call]] = []
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, current: Call, seconds: float) -> None:
        with self._changed:
            while self._heap and self._heap[0][2].ended:
                heapq.heappop(self._heap)  # so that the heap is as long as there are calls, about
            heapq.heappush(self._heap, (current.started + seconds, next(self._numbers), current))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._changed.wait()
                end, _, current = self._heap[0]
                left = end - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                heapq.heappop(self._heap)
            current.abort()


_watchdog = _Watchdog()
