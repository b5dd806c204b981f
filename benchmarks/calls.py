"""What a process does in the scenario ``gateway``: the same calls, of a provider itself, through a
proxy that speaks OpenAI's wire, and through ours.

Calls over HTTP are written by hand on asyncio's streams: what the process that calls costs is to be as
little as can be. Moments are of the system-wide monotonic clock, times are seconds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

Order = dict[str, Any]
TIMEOUT = 120.0


class Failed(Exception):
    """An answer that is none."""


class Wire:
    """A connection that is kept, to ``url``; ``order``: url, model, headers."""

    def __init__(self, order: Order) -> None:
        where = urlsplit(order["url"])
        self._address = (where.hostname, where.port)
        self._model = order["model"]
        self._head = "".join(
            f"{name}: {value}\r\n"
            for name, value in {
                "Host": where.netloc,
                "Content-Type": "application/json",
                **order.get("headers", {}),
            }.items()
        )
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, *, stream: bool) -> tuple[float, float]:
        """Seconds to the first token (the whole answer, where it comes whole), and to the end."""
        began = time.monotonic()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(*self._address)
        body: Order = {"model": self._model, "stream": stream}
        body["messages"] = [{"role": "user", "content": "Say something."}]
        text = json.dumps(body).encode()
        start = f"POST /v1/chat/completions HTTP/1.1\r\n{self._head}"
        self._writer.write(f"{start}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.split(b"\r\n")[0]:
            raise Failed(head.split(b"\r\n")[0].decode())
        first = 0.0
        if b"transfer-encoding: chunked" in head:
            first = await self._chunks(self._reader)
        else:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            await self._reader.readexactly(length)
        ended = time.monotonic()
        if b"connection: close" in head:
            self.close()
        return (first or ended) - began, ended - began

    async def _chunks(self, reader: asyncio.StreamReader) -> float:
        """Read to the last chunk; the moment of the first one with a token in it."""
        first = 0.0
        while size := int(await reader.readline(), 16):
            chunk = await reader.readexactly(size + 2)
            if not first and b'"content":' in chunk and b'"content":""' not in chunk:
                first = time.monotonic()
        await reader.readline()
        return first

    def close(self) -> None:
        """Use it no longer."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def http_latency(order: Order) -> Order:
    """``count`` calls, one at a time; ``stream``: in pieces."""

    async def run() -> Order:
        wire = Wire(order)
        times = [await wire.call(stream=order["stream"]) for _ in range(order["count"])]
        wire.close()
        return {"first": [first for first, _ in times], "whole": [whole for _, whole in times]}

    return asyncio.run(run())


def http_load(order: Order) -> Order:
    """``callers`` at once, each one call after the other for ``seconds``; 0: one call each."""

    async def one(until: float) -> Order:
        wire = Wire(order)

        async def call() -> float:
            return (await asyncio.wait_for(wire.call(stream=False), TIMEOUT))[1]

        try:
            return await _loop(call, until, wire.close)
        finally:
            wire.close()

    async def run() -> Order:
        began = time.monotonic()
        until = began + order["seconds"]
        return _together(
            began, await asyncio.gather(*(one(until) for _ in range(order["callers"])))
        )

    return asyncio.run(run())


async def _loop(
    call: Callable[[], Awaitable[float]], until: float, after_failure: Callable[[], None]
) -> Order:
    times, failures, ended = [], Counter[str](), time.monotonic()
    while True:
        try:
            times.append(await call())
        except Exception as error:  # what kind of failure it is, is the figure
            failures[f"{type(error).__name__}: {error}"[:80]] += 1
            after_failure()
        ended = time.monotonic()
        if ended >= until:
            return {"times": times, "failures": dict(failures), "ended": ended}


def _together(began: float, found: list[Order]) -> Order:
    failures: Counter[str] = Counter()
    for item in found:
        failures.update(item["failures"])
    return {
        "began": began,
        "ended": max(item["ended"] for item in found),
        "times": [seconds for item in found for seconds in item["times"]],
        "failures": dict(failures),
    }


# --- ours -----------------------------------------------------------------------------------------


def ours_first(order: Order) -> Order:
    """``count`` responses, one at a time, with ``client.stream``."""
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    firsts, wholes = [], []
    for number in range(order["count"]):
        began = time.monotonic()
        first = 0.0
        for event in client.stream(**order["datas"][number % len(order["datas"])]):
            if event.type == "response.delta" and not first:
                first = time.monotonic()
        if event.type != "response.completed":
            raise Failed(str(event.data.get("error")))
        firsts.append(first - began)
        wholes.append(time.monotonic() - began)
    return {"first": firsts, "whole": wholes}


def ours_load(order: Order) -> Order:
    """As ``http_load``: a thread for each caller, which has its own chats, of ``datas``, in turns."""
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    ready = threading.Barrier(len(order["datas"]) + 1)
    found: list[Order] = []
    until = 0.0

    def one(datas: list[dict[str, Any]]) -> None:
        times: list[float] = []
        failures: Counter[str] = Counter()
        chats = itertools.cycle(datas)
        ready.wait()
        ended = time.monotonic()
        while True:
            began = ended
            try:
                envelope = client.generate_llm_response(**next(chats))
            except Exception as error:  # what kind of failure it is, is the figure
                failures[type(error).__name__] += 1
            else:
                if envelope["status"] == "error":
                    failures[envelope["error"]["code"]] += 1
                else:
                    times.append(time.monotonic() - began)
            ended = time.monotonic()
            if ended >= until:
                break
        found.append({"times": times, "failures": failures, "ended": ended})

    threads = [threading.Thread(target=one, args=(datas,)) for datas in order["datas"]]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    until = began + order["seconds"]
    ready.wait()
    for thread in threads:
        thread.join()
    return _together(began, found)
