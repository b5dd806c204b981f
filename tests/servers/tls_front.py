"""TLS before a PostgreSQL that was built without it, as the wheel's is.

It answers PostgreSQL's request for TLS itself, ends it, and forwards what comes out
(https://www.postgresql.org/docs/current/protocol-flow.html, "SSL Session Encryption").
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import threading
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from tests.servers import HOST
from tests.servers.certificates import Certificate

_REQUEST = struct.pack("!ii", 8, 80877103)


class TlsFront:
    """Takes connections with TLS only; a context manager. ``url``: that of the server behind it."""

    def __init__(self, url: str, certificate: Certificate) -> None:
        self._parts = urlsplit(url)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate.cert, certificate.key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tls front")
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, HOST, 0), self._loop
        )
        self._server = started.result(30)
        port = self._server.sockets[0].getsockname()[1]
        netloc = f"{self._parts.netloc.rpartition('@')[0]}@{HOST}:{port}"
        self.url = urlunsplit(self._parts._replace(netloc=netloc))
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._talk(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(_REQUEST)) != _REQUEST:
            return  # no word without TLS
        writer.write(b"S")
        await writer.drain()
        await writer.start_tls(self._context)
        behind, before = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        try:
            ends = [_pump(reader, before), _pump(behind, writer)]
            _, others = await asyncio.wait(
                [asyncio.ensure_future(end) for end in ends], return_when=asyncio.FIRST_COMPLETED
            )
            for other in others:
                other.cancel()
        finally:
            before.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
