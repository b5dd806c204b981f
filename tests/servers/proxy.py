"""A TCP proxy before a real server: it can be cut, frozen, or lose an answer, and is then mended.

So a test takes a server away from the process under test without stopping it for anybody else.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.servers import HOST

PIECE = 65_536
_RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to the server in ``url``; a context manager. Threads are its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or HOST, parts.port or 0)
        self._parts = parts
        # Not the system's choice: while the proxy is cut, nobody else may be given its port.
        self._port = 0  # whichever is free, and that one from then on
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._lost: bytes | None = None
        self._last: bytes | None = None
        #: How often something was cut off.
        self.cuts = 0
        #: Everything that clients have said.
        self.said = bytearray()

    @property
    def url(self) -> str:
        """The server's URL, by way of the proxy."""
        user, separator, _ = self._parts.netloc.rpartition("@")
        netloc = f"{user}{separator}{HOST}:{self._port}"
        return urlunsplit(self._parts._replace(netloc=netloc))

    # --- what can happen to it ----------------------------------------------------------------

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # shutdown wakes the thread in accept; close alone would not.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        with self._lock:
            for connection in self._open:
                _abort(connection)
        self.cuts += 1
        self._flowing.set()

    def mend(self) -> None:
        """Take connections again, at the same address."""
        listener = socket.create_server((HOST, self._port), backlog=128)
        self._port = listener.getsockname()[1]
        with self._lock:
            self._listener = listener
        self._start(self._accept, listener)

    def freeze(self) -> None:
        """Keep connections, take new ones, forward nothing."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward what has waited."""
        self._flowing.set()

    def lose_the_answer_to(self, words: bytes) -> None:
        """Once: forward a request with these words, and reset its connection before the answer."""
        self._lost = words

    def has_lost_it(self) -> bool:
        """Whether that answer was due, and is lost."""
        return self._lost is None

    def cut_after(self, words: bytes) -> None:
        """Once: forward a request with these words and its answer, and then ``cut``."""
        self._last = words

    def __enter__(self) -> Self:
        self.mend()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        for thread in self._threads:
            thread.join()

    # --- its threads ----------------------------------------------------------------------------

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if self._listener is not listener:  # it was cut just now
                    client.close()
                    return
                self._open.add(client)
            self._start(self._forward, client)

    def _forward(self, client: socket.socket) -> None:
        with client:
            try:
                with socket.create_connection(self._target) as server:
                    self._pump(client, server)
            except OSError:
                pass  # either end has gone, or was cut off
            finally:
                with self._lock:
                    self._open.discard(client)

    def _pump(self, client: socket.socket, server: socket.socket) -> None:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            for source in select.select([client, server], [], [])[0]:
                data = source.recv(PIECE)
                self._flowing.wait()
                if not data:
                    return
                (server if source is client else client).sendall(data)
                if source is server:
                    continue
                self.said += data
                if self._lost is not None and self._lost in data:
                    self._lost = None
                    server.recv(PIECE)  # it is done, and only the client does not know
                    self.cuts += 1
                    _abort(client)
                    return
                if self._last is not None and self._last in data:
                    self._last = None
                    client.sendall(server.recv(PIECE))
                    self.cut()
                    return


def _abort(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
