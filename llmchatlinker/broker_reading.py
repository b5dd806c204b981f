"""Reading from RabbitMQ: what is there is taken with one system call, and parsed from memory.

py-amqp reads a frame in three pieces, each by a call of its own, with two more around every frame that
set the socket's timeout (``amqp/transport.py``); kombu then reads once more to find out that there is
nothing left (``kombu/transport/base.py``, ``_make_reader``). A message is three frames, so it took 24
calls, and at each of them a thread lets go of the interpreter, which the other threads of a busy worker
are slow to give back. TLS stays as it is: there the library below has the buffer.
"""

from __future__ import annotations

import errno
from struct import unpack_from
from threading import Lock
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport

#: Bytes that are asked for at once: what a worker's whole prefetch takes fits several times.
CHUNK = 65_536
#: Type, channel and size of a frame come before it, and one byte that is always the same behind it.
_HEAD, _AROUND = 7, 8
#: The types of frames, and the byte behind each
#: (https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf, 4.2.3).
METHOD, HEADER, BODY, END = 1, 2, 3, 0xCE
_UNAVAILABLE = (errno.EAGAIN, errno.EINTR)


class BufferedTransport(TCPTransport):
    """A socket whose bytes may be here before they are asked for.

    ``polled``: an event loop looks at the socket, and does not see what has been taken from it. So
    more than is asked for is taken only where the socket does not block: such a read comes from the
    loop, which goes on until everything here is dealt with.
    """

    polled = False
    #: What was taken and not yet asked for begins ``_at`` there.
    _read_buffer: bytes
    _at = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        self._writing = Lock()
        super().__init__(*args, **options)

    def write(self, s: Any) -> None:
        """One at a time: py-amqp sees to that in what makes frames, and not all are made there."""
        with self._writing:
            super().write(s)

    def holds_frame(self) -> bool:
        """Whether the next frame can be read without the socket."""
        missing: int = self._missing()
        return missing <= 0

    def read_frame(self, unpack: Any = None) -> tuple[int, int, bytes]:
        """The next frame's type, channel and payload.

        Raises TimeoutError (py-amqp's ``socket.timeout`` is its old name) where it does not come in
        time; what has come of it is kept.
        """
        while (missing := self._missing()) > 0:
            self._receive(missing)
        buffer, start = self._read_buffer, self._at
        kind, channel, size = unpack_from(">BHI", buffer, start)
        end = start + _HEAD + size
        if buffer[end] != END:
            raise UnexpectedFrame(
                f"Received frame_end {buffer[end]:#04x} while expecting {END:#04x}"
            )
        self._at = end + 1
        return kind, channel, buffer[start + _HEAD : end]

    def _missing(self) -> int:
        """Bytes that the next frame needs, as far as that is known."""
        buffer, start = self._read_buffer, self._at
        here = len(buffer) - start
        if here < _HEAD:
            return _HEAD - here
        size: int = unpack_from(">I", buffer, start + 3)[0]
        return size + _AROUND - here

    def _receive(self, missing: int) -> None:
        """At least one byte more."""
        sock = self.sock
        takes_all = not self.polled or sock.gettimeout() == 0
        try:
            came = sock.recv(max(missing, CHUNK) if takes_all else missing)
        except TimeoutError:
            raise
        except OSError as error:
            if error.errno in _UNAVAILABLE:
                raise TimeoutError from None
            self.connected = False
            raise
        if not came:
            self.connected = False
            raise OSError("Server unexpectedly closed connection")
        self._read_buffer = self._read_buffer[self._at :] + came
        self._at = 0


def drain(connection: Any) -> None:
    """Deal with everything that has come. ``connection``: py-amqp's, on a BufferedTransport."""
    if not connection.connected:
        raise RecoverableConnectionError("Socket was disconnected")
    transport = connection.transport
    try:
        with transport.having_timeout(0):
            frame = transport.read_frame()
    except TimeoutError:
        return
    connection.on_inbound_frame(frame)
    # One by one: who gets a message may well wait for another frame itself.
    while connection.connected and transport.holds_frame():
        connection.on_inbound_frame(transport.read_frame())
