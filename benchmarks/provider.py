"""A provider for load: ``python -m benchmarks.provider --delay 2``, prints its port. With ``--tokens``
it answers in so many pieces, ``--delay`` seconds before each, where that is asked for.

One thread and asyncio, where ``tests/servers/provider.py`` has a thread per connection: with a
thousand calls at once that server is what would be measured. It speaks as much of OpenAI's wire as
a completion needs (https://platform.openai.com/docs/api-reference/chat).
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

HOST = "127.0.0.1"
_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 0,
    "model": "echo",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "You said something."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
}
_BODY = json.dumps(_ANSWER).encode("ascii")
_RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@functools.cache
def _token(number: int) -> bytes:
    return piece({"content": f"{number} "})


def piece(delta: dict[str, str], finish: str | None = None) -> bytes:
    """A piece of a streamed answer, as a chunk of HTTP."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    event = b"data: " + json.dumps({"id": "chatcmpl-1", "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = piece({}, "stop") + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def answering(delay: float, tokens: int = 0) -> Handler:
    """Answers every request on a connection ``delay`` seconds after it came, or in ``tokens``."""

    async def stream(writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM)
        for number in range(tokens):
            await asyncio.sleep(delay)
            writer.write(_token(number))
            await writer.drain()
        writer.write(DONE)
        await writer.drain()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(content_length(head))
                if tokens and body and json.loads(body).get("stream"):
                    await stream(writer)
                    continue
                await asyncio.sleep(delay)
                writer.write(_RESPONSE)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    return handle


def content_length(head: bytes) -> int:
    """How long the body behind these headers is."""
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


async def serve(delay: float, tokens: int = 0) -> None:
    """Listen on a free port, print it, and serve for ever."""
    server = await asyncio.start_server(answering(delay, tokens), HOST, 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=2.0, help="seconds before each answer")
    parser.add_argument("--tokens", type=int, default=0, help="pieces of an answer")
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.delay, chosen.tokens))


if __name__ == "__main__":
    main()
