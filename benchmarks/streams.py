"""What a process does in the scenario ``streams``: follow many streams, ours or a provider's, or write.

Moments are of the system-wide monotonic clock, times are seconds.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

Order = dict[str, Any]

#: Events that wait in the writer, at most, while it is fed as fast as it can take them.
AHEAD = 20_000


def ours(order: Order) -> Order:
    """``client.stream(…)`` for each of ``datas``, one every ``interval`` seconds."""
    return asyncio.run(_ours(order))


async def _ours(order: Order) -> Order:
    from llmchatlinker.async_client import AsyncLLMChatLinkerClient

    async with AsyncLLMChatLinkerClient() as client:

        async def one(data: dict[str, Any]) -> Order:
            began = time.monotonic()
            first: float | None = None
            numbers, tokens = [], 0
            stream = await client.stream(**data)
            async for event in stream:
                numbers.append(event.sequence_number)
                if event.type == "response.delta":
                    first = first or time.monotonic()
                    tokens += 1
            gapless = numbers == list(range(1, len(numbers) + 1))
            return {
                "first": None if first is None else first - began,
                "tokens": tokens,
                "good": gapless and event.type == "response.completed",
            }

        return await _spread(one, order)


def direct(order: Order) -> Order:
    """The same from the provider itself, with nothing in between."""
    return asyncio.run(_direct(order))


async def _direct(order: Order) -> Order:
    where = urlsplit(order["url"])
    body = json.dumps({"model": "echo", "messages": [], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"

    async def one(data: dict[str, Any]) -> Order:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(head.encode() + body)
        first, tokens = None, 0
        async for line in reader:
            if b'"content"' in line:
                first = first or time.monotonic()
                tokens += 1
            if b"[DONE]" in line:
                break
        writer.close()
        return {"first": first and first - began, "tokens": tokens, "good": tokens > 0}

    return await _spread(one, order)


async def _spread(one: Callable[[dict[str, Any]], Awaitable[Order]], order: Order) -> Order:
    tasks = []
    began = time.monotonic()
    for number, data in enumerate(order["datas"]):
        await asyncio.sleep(max(0.0, began + number * order["interval"] - time.monotonic()))
        tasks.append(asyncio.ensure_future(one(data)))
    return {"streams": await asyncio.gather(*tasks)}


def event_rate(order: Order) -> Order:
    """``count`` events through the writer of this process, of the given attempts in turn."""
    from uuid import UUID

    from llmchatlinker.providers.base import Delta
    from llmchatlinker.streaming.writer import open_stream

    streams = [
        open_stream(UUID(instruction_id), attempt_id, 0, lambda reason: None, order["followers"])
        for instruction_id, attempt_id in order["attempts"]
    ]
    delta = Delta("text", " token")
    cpu, began = time.process_time(), time.monotonic()
    for start in range(0, order["count"], len(streams)):
        for stream in streams:
            stream.delta(delta)
        if start % 1_000 < len(streams):
            while streams[0].waiting * len(streams) > AHEAD:
                time.sleep(0.001)
    while any(stream.waiting for stream in streams):
        time.sleep(0.001)
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    tails = [stream.drain() for stream in streams]
    return {
        "seconds": seconds,
        "cpu": used,
        "left": sum(len(tail.events) for tail in tails),
        "threads": threading.active_count(),
    }
