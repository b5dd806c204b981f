"""The SDK for asyncio: the methods of ``client.py``, to await, and no event loop is ever blocked.

What blocks (a row in PostgreSQL, a confirmed message) runs in a few threads of the client's own; who
submits while all of them are busy waits for its turn. *Waiting* for an envelope takes no thread: the
process's one reader (``results/wakeups.py``) wakes the event loop, for ten thousand coroutines as
for one.

What is returned and raised is what the blocking client returns and raises. A coroutine that is
cancelled no longer waits; its instruction goes on. One that is cancelled while it submits does not
learn whether the instruction was submitted: give an ``idempotency_key`` where that matters.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from llmchatlinker.client_methods import InstructionMethods, refusal, split
from llmchatlinker.envelope import Envelope
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType
from llmchatlinker.message_queue import longest_wait
from llmchatlinker.orchestrator import submit
from llmchatlinker.results.reading import Meta
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.async_responses import Adopt, AsyncResponseStream, Wake
from llmchatlinker.streaming.responses import follow, submit_stream

Result = TypeVar("Result")


class AsyncInstructionResult:
    """The result of an instruction: ``.id``, and to await ``get(timeout=…)``, ``state()``, ``ready()``
    and ``revoke()``.
    """

    def __init__(self, id: str, threads: Threads) -> None:
        self.id = id
        self._threads = threads

    async def get(self, timeout: float | None = None) -> Envelope:
        """The envelope, once it is there.

        ``timeout``: seconds. Raises ResultTimeout when it takes longer, NotFound for an id that was
        never submitted, and Unavailable when the last look finds no PostgreSQL.
        """
        result = InstructionResult(self.id)
        if timeout is None:
            return result.received(await _ready(self.id))
        if timeout > 0:
            try:
                async with asyncio.timeout(timeout):
                    meta = await _ready(self.id)
            except TimeoutError:
                pass  # perhaps only the wake-up was lost
            else:
                return result.received(meta)
        return await self._threads.run(partial(result.last_look, timeout))

    async def state(self) -> str:
        """``AsyncResult.state``: PENDING, STARTED or SUCCESS. Raises Unavailable."""
        found = await self._threads.run(lambda: InstructionResult(self.id).state)
        return str(found)

    async def ready(self) -> bool:
        """Whether the envelope is there. Raises Unavailable."""
        return bool(await self._threads.run(lambda: InstructionResult(self.id).ready()))

    async def revoke(self) -> None:
        """``InstructionResult.revoke``: cancel the instruction, from any process. Raises Unavailable."""
        await self._threads.run(lambda: InstructionResult(self.id).revoke())

    def __repr__(self) -> str:
        return f"<AsyncInstructionResult: {self.id}>"


class AsyncLLMChatLinkerClient(InstructionMethods[Coroutine[Any, Any, Envelope]]):
    """Submits instructions and awaits their envelopes; one for each event loop.

    ``threads``: submissions at the same time, at most (default: LLMCHATLINKER_BROKER_POOL_SIZE, since
    each takes a publishing connection). ``async with``, or ``aclose()``, lets go of the threads.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError("An AsyncLLMChatLinkerClient needs at least one thread.")
        self._threads = Threads(threads)
        self._closed = False

    async def submit(
        self, type: str | InstructionType, /, **arguments: Any
    ) -> AsyncInstructionResult:
        """Submit; ``await result.get()`` of what comes back waits for the envelope."""
        self._must_be_open()
        name, data, beside = split(type, arguments)
        instruction_id = await self._threads.run(partial(submit, name, data, **beside))
        return AsyncInstructionResult(instruction_id, self._threads)

    async def run(self, type: str | InstructionType, /, **arguments: Any) -> Envelope:
        """Submit, wait, and return the envelope."""
        deadline = arguments.get("deadline")
        try:
            result = await self.submit(type, **arguments)
            return await result.get(timeout=longest_wait(deadline))
        except LLMChatLinkerError as error:
            return refusal(error)

    def result(self, instruction_id: str) -> AsyncInstructionResult:
        """The result of an instruction that anybody submitted."""
        return AsyncInstructionResult(instruction_id, self._threads)

    async def pages(
        self, type: str | InstructionType, /, **arguments: Any
    ) -> AsyncIterator[Envelope]:
        """The envelopes of a list or an export, page after page; ends after one that failed."""
        after: Any = arguments.pop("after", None)
        while True:
            envelope = await self.run(type, after=after, **arguments)
            yield envelope
            after = envelope["data"].get("next")
            if after is None:
                return

    def stream(
        self,
        *,
        user_id: int | None = None,
        chat_id: int | None = None,
        llm_id: int | None = None,
        user_input: str | list[Any] | None = None,
        message_id: int | None = None,
        **more: Any,
    ) -> AsyncResponseStream:
        """``LLMChatLinkerClient.stream``, for ``async for`` or ``async with``, which submit; or
        ``await`` it, which submits and gives the stream.
        """
        asked = {"user_id": user_id, "chat_id": chat_id, "llm_id": llm_id, "user_input": user_input}
        asked |= {"message_id": message_id} | more

        async def begin(wake: Wake, adopt: Adopt) -> None:
            self._must_be_open()
            # Adopted in the thread: a coroutine that is cancelled leaves no follower without an owner.
            await self._threads.run(lambda: adopt(submit_stream(asked, wake)))

        return AsyncResponseStream(begin)

    def follow(
        self, instruction_id: str, *, starting_after: int = 0, snapshot: bool = False
    ) -> AsyncResponseStream:
        """``LLMChatLinkerClient.follow``, for ``async for``, ``async with`` or ``await``; it takes no
        thread.
        """

        async def begin(wake: Wake, adopt: Adopt) -> None:
            adopt(follow(instruction_id, wake, after=starting_after, snapshot=snapshot))

        return AsyncResponseStream(begin)

    async def aclose(self) -> None:
        """Submit nothing any more. What is submitted, or about to be, goes on and can be awaited."""
        self._closed = True
        self._threads.let_go()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _must_be_open(self) -> None:
        if self._closed:
            raise RuntimeError("This AsyncLLMChatLinkerClient is closed.")


class Threads:
    """A client's own threads for what blocks. Made at the first use, and anew after a fork."""

    def __init__(self, count: int | None) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None
        self._pid = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """What ``work`` returns or raises; waits for a thread that is free."""
        if self._pool is None or self._pid != os.getpid():
            count = self._count or get_settings().broker_pool_size
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="llmchatlinker-client")
            self._pid = os.getpid()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def let_go(self) -> None:
        """The threads end when they have done what they were given; nobody waits for that here."""
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=False)


async def _ready(task_id: str) -> Meta:
    """The id's meta once it is ready, from the process's reader."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Meta] = loop.create_future()

    def set_result(meta: Meta) -> None:
        if not future.done():  # its coroutine may have been cancelled meanwhile
            future.set_result(meta)

    def on_ready(meta: Meta) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(set_result, meta)

    registry = wakeups()
    registry.wait(task_id, on_ready)
    try:
        return await future
    finally:
        registry.leave(task_id, on_ready)
