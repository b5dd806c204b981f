"""Responses for asyncio: opened by ``await``, ``async with`` or ``async for``, whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.follower import Follower, ResponseEvent
from llmchatlinker.streaming.responses import PATIENCES, _Response, no_answer

Wake = Callable[[], None]
Adopt = Callable[[Follower], None]
#: Makes a follower that is woken by the one, and hands it to the other.
Begin = Callable[[Wake, Adopt], Awaitable[None]]


class AsyncResponseStream(_Response):
    """The same for asyncio; made by ``stream`` and ``follow`` of the client. It takes no thread.

    Nothing is submitted or followed before its first ``await``, ``async with`` or ``async for``, any
    of which opens it, once. ``await`` gives the stream itself, whose ``instruction_id`` is there then.
    """

    def __init__(self, begin: Begin) -> None:
        self._begin: Begin | None = begin
        self._opening = asyncio.Lock()
        self._some = asyncio.Event()
        self._is_closed = False

    @property
    def instruction_id(self) -> str:
        """The instruction, for ``follow``, ``result`` and ``cancel``, from any process."""
        if not self._has_follower:
            raise RuntimeError("This AsyncResponseStream is not open yet: await it first.")
        return self._follower.instruction_id

    def __await__(self) -> Generator[Any, None, Self]:
        return self.opened().__await__()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ResponseEvent:
        if not self._is_closed:
            await self.opened()
        while not self._is_closed and self._close.alive and not self._follower.is_over:
            self._some.clear()
            event = self._step()
            if event is not None:
                return event
            if not self._follower.is_over:
                await self._some.wait()
        self._leave()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Follow no longer. One that is not open yet is never opened."""
        self._leave()
        self._some.set()

    async def __aenter__(self) -> Self:
        return await self.opened()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def opened(self) -> Self:
        """Itself, once PostgreSQL has been asked, or has the instruction. Raises what ``stream`` and
        ``follow`` of the client raise.
        """
        if self._has_follower and self._follower.opened:
            return self
        async with self._opening:
            if self._begin is not None and not self._is_closed:
                begin, self._begin = self._begin, None
                await begin(waker(asyncio.get_running_loop(), self._some), self._adopt)
            if self._is_closed or not self._has_follower:
                self._leave()
                raise RuntimeError("This AsyncResponseStream was closed, or could not be opened.")
            await self._found()
        return self

    async def _found(self) -> None:
        patience = get_settings().client_patience * PATIENCES
        while not self._follower.opened:
            self._some.clear()
            self._follower.check()
            if not self._follower.opened:
                try:
                    async with asyncio.timeout(patience):
                        await self._some.wait()
                except TimeoutError:
                    self._leave()
                    raise no_answer() from None

    @property
    def _has_follower(self) -> bool:
        return hasattr(self, "_follower")

    def _leave(self) -> None:
        self._is_closed = True
        if self._has_follower:
            self._close()

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"<{name}: {self._follower.instruction_id if self._has_follower else 'not open'}>"


def waker(loop: asyncio.AbstractEventLoop, some: asyncio.Event) -> Wake:
    """Sets an event of the loop's, from any thread."""

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(some.set)

    return wake
