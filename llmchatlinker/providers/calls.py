"""Calls under way, each of which another thread can break off by closing its connection.

``requests`` knows no timeout for a whole exchange: its read timeout starts anew with every byte, in
the headers as well as in the body. So one thread per process watches all calls against the clock.
"""

from __future__ import annotations

import heapq
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmchatlinker.providers.base import Usage

#: Calls that have ended, and that the watchdog may still have, beside as many as are under way.
ENDED_ENTRIES = 64
#: Seconds after which the watchdog looks by itself: to wake it for each new call costs more.
TICK = 0.5

#: SO_LINGER: on, for no time at all.
_RESET = struct.pack("ii", 1, 0)

_here = threading.local()
#: The calls of this process.
_calls: set[Call] = set()


class Call:
    """One exchange with a provider. ``cancel`` and ``abort`` may come from any thread, at any time."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.aborted = False
        #: It was broken off because nobody wants its answer any longer.
        self.cancelled = False
        #: Why it was broken off: ``cancelled``, ``aborted``, or the timeout that ran out.
        self.reason: str | None = None
        self.connected = False
        self.ended = False
        #: What the provider has counted so far, also where the answer never becomes whole.
        self.usage: Usage | None = None
        #: When the watchdog breaks it off (by ``time.monotonic``), and for which reason.
        self.due: tuple[float, str] = (float("inf"), "total_timeout")
        self.watched_for = float("inf")
        self._end = float("inf")
        self._socket: Any = None
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.started

    def begin(self, seconds: float) -> None:
        """The exchange begins now, and has that long at most."""
        if self.ended:
            raise RuntimeError("A Call is for one exchange.")
        self.started = time.monotonic()
        self._end = self.started + seconds
        self.due = (self._end, "total_timeout")
        _watchdog.watch(self)

    def allow(self, seconds: float, reason: str) -> None:
        """From now on it has that long, until this is said again; never more than in all."""
        moment = time.monotonic() + seconds
        self.due = (moment, reason) if moment < self._end else (self._end, "total_timeout")
        if moment < self.watched_for < float("inf"):  # under way, and looked at too late
            _watchdog.watch(self)

    def uses(self, connected: Any) -> None:
        """The call now depends on this socket."""
        with self._lock:
            self._socket = connected
            if self.aborted:
                _shut_down(connected)

    def lets_go(self) -> bool:
        """Its connection is nobody's to close any longer; returns whether it was broken off."""
        with self._lock:
            self._socket = None
            return self.aborted

    def patience(self, seconds: float) -> None:
        """Each read from its connection may take that long."""
        with self._lock, suppress(OSError):
            if self._socket is not None:
                self._socket.settimeout(seconds)

    def end(self) -> None:
        """It is over."""
        with self._lock:
            self.ended = True
            self._socket = None

    def cancel(self) -> None:
        """Break it off because nobody wants its answer any longer; once it is over, nothing."""
        self.abort("cancelled")

    def abort(self, reason: str = "aborted") -> None:
        """Close the connection: whoever reads from it gets an end or an error at once."""
        with self._lock:
            if not self.ended and not self.aborted:
                self.aborted = True
                self.reason = reason
                self.cancelled = reason == "cancelled"
                _shut_down(self._socket)


def _shut_down(connected: Any) -> None:
    # Of TLS in TLS (a proxy) the socket below; of TLS not its own shutdown, which drops the state
    # that the reading thread is using.
    connected = getattr(connected, "socket", connected)
    if connected is not None:
        with suppress(OSError):  # closed already
            # Closing then resets the connection. A provider that was held up by our full buffer would
            # otherwise go on waiting for up to a minute: Linux does not answer the probes of a zero
            # window once a socket that was shut down is read empty and closed (tcp_minisocks.c).
            socket.socket.setsockopt(connected, socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            socket.socket.shutdown(connected, socket.SHUT_RDWR)


@contextmanager
def under_way(call: Call, seconds: float) -> Iterator[Call]:
    """The call is made by this thread now, and is broken off after that time."""
    call.begin(seconds)
    _here.call = call
    _calls.add(call)
    try:
        yield call
    finally:
        _calls.discard(call)
        _here.call = None
        call.end()


#: Why a call was broken off when its worker stops, in the details of its error.
HANDED_BACK = "handed_back"


def abort_all(reason: str) -> None:
    """Break off every call of this process."""
    for call in list(_calls):
        call.abort(reason)


def current_call() -> Call | None:
    """The call that this thread is making."""
    call: Call | None = getattr(_here, "call", None)
    return call


class _Watchdog:
    """One thread that breaks off what takes too long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Call]] = []
        self._sweep_at = ENDED_ENTRIES
        self._numbers = itertools.count()
        self._wakes_at = float("inf")
        self._thread: threading.Thread | None = None

    def watch(self, call: Call) -> None:
        """Look at the call when it is due, or earlier where it was to be looked at earlier."""
        with self._changed:
            if len(self._heap) >= self._sweep_at:
                self._heap = [entry for entry in self._heap if not entry[2].ended]
                heapq.heapify(self._heap)
                self._sweep_at = 2 * len(self._heap) + ENDED_ENTRIES
            entry = self._push(call)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="calls", daemon=True)
                self._thread.start()
            elif entry[0] < self._wakes_at:
                self._changed.notify()

    def _push(self, call: Call) -> tuple[float, int, Call]:
        call.watched_for = call.due[0]
        entry = (call.watched_for, next(self._numbers), call)
        heapq.heappush(self._heap, entry)
        return entry

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap:
                    self._wakes_at = float("inf")
                    self._changed.wait()
                moment, _, call = self._heap[0]
                now = time.monotonic()
                if moment > now and not call.ended:
                    self._wakes_at = min(moment, now + TICK)
                    self._changed.wait(self._wakes_at - now)
                    continue
                heapq.heappop(self._heap)
                if call.ended or moment != call.watched_for:
                    continue  # over, or looked at by another entry
                due, reason = call.due
                if due > time.monotonic():  # it was given more time meanwhile
                    self._push(call)
                    if call.due[0] < call.watched_for:  # and less of it just now
                        self._push(call)
                    continue
            call.abort(reason)


_watchdog = _Watchdog()
