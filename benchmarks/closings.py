"""A provider whose answers have no end, and which notes when a client has closed its connection.

It runs in the process that measures, in a thread of its own. Who asks says in its question by which
name the moment is noted. Moments are of the system-wide monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.provider import DONE, HOST, STREAM, content_length, piece


class Closings:
    """``closed``: when the connection of each question was closed."""

    def __init__(self, interval: float) -> None:
        self.url = ""
        self.closed: dict[str, float] = {}
        self._interval = interval
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="provider")

    def finish(self) -> None:
        """Bring every answer to its end, and take no more."""
        if self._loop is not None and self._over is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._over.set)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._answer, HOST, 0, backlog=2048)
        self.url = f"http://{HOST}:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        async with server:
            await self._over.wait()
            await asyncio.sleep(1.0)  # the ends are on their way

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._over is not None
        question = ""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = json.loads(await reader.readexactly(content_length(head)))
                question = body["messages"][-1]["content"]
                leaving = asyncio.ensure_future(reader.read(1))
                writer.write(STREAM)
                while not self._over.is_set() and not leaving.done():
                    writer.write(piece({"content": "and on "}))
                    await asyncio.wait([leaving], timeout=self._interval)
                if leaving.done():
                    leaving.exception()
                    self.closed[question] = time.monotonic()
                    return
                leaving.cancel()
                writer.write(DONE)
                await writer.drain()
                return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # before it has asked anything
        finally:
            writer.close()


@contextmanager
def closings(interval: float) -> Iterator[Closings]:
    """One that runs: a piece every ``interval`` seconds."""
    provider = Closings(interval)
    provider._thread.start()
    provider._ready.wait()
    try:
        yield provider
    finally:
        provider.finish()
        provider._thread.join()
