"""Streams for asyncio: ``await``, ``async with`` and ``async for`` each open them, and only once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.errors import InvalidData, NotFound, Unavailable
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.streaming.async_responses import AsyncResponseStream
from llmchatlinker.streaming.following import following
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.loops import until
from tests.fixtures.streams import Produce
from tests.servers.proxy import Proxy

TURN: dict[str, Any] = {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "Hello?"}

Spelling = Callable[[AsyncResponseStream], Awaitable[str]]


async def for_alone(made: AsyncResponseStream) -> str:
    return "".join([event.text async for event in made])


async def for_of_awaited(made: AsyncResponseStream) -> str:
    return "".join([event.text async for event in await made])


async def with_alone(made: AsyncResponseStream) -> str:
    async with made as stream:
        return "".join([event.text async for event in stream])


async def with_of_awaited(made: AsyncResponseStream) -> str:
    async with await made as stream:
        return "".join([event.text async for event in stream])


SPELLINGS = [for_alone, for_of_awaited, with_alone, with_of_awaited]


def in_a_loop(work: Callable[[AsyncLLMChatLinkerClient], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with AsyncLLMChatLinkerClient() as own:
            return await work(own)

    return asyncio.run(main())


def followed() -> int:
    """How many responses the process follows."""
    return len(following()._followers)


def submitted(cycle: Cycle) -> list[UUID]:
    return [row[0] for row in cycle.sql("SELECT id FROM instructions")]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_stream_submits_once_and_has_the_whole_answer(
    cycle: Cycle, produce: Produce, spelling: Spelling
) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> str:
        read = asyncio.create_task(spelling(own.stream(**TURN)))
        await until(lambda: submitted(cycle))
        produced = produce(submitted(cycle)[0])
        produced.say("Hel", "lo")
        produced.finish("Hello")
        return await read

    assert in_a_loop(work) == "Hello"
    assert cycle.count("instructions") == 1


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_follow_has_the_whole_answer(
    produce: Produce, spelling: Spelling
) -> None:
    produced = produce()
    produced.say("Hel", "lo")
    produced.finish("Hello")

    assert in_a_loop(lambda own: spelling(own.follow(produced.id))) == "Hello"


def test_nothing_is_submitted_before_a_stream_is_opened(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> None:
        stream = own.stream(**TURN)
        with pytest.raises(RuntimeError, match="not open yet"):
            _ = stream.instruction_id
        assert cycle.count("instructions") == 0

        assert await stream is stream

        assert submitted(cycle) == [UUID(stream.instruction_id)]

    in_a_loop(work)


def test_a_stream_that_is_opened_by_several_at_once_is_submitted_once(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> None:
        stream = own.stream(**TURN)
        await asyncio.gather(*[stream.opened() for _ in range(10)])
        async with stream:
            await stream

    in_a_loop(work)

    assert cycle.count("instructions") == 1


def test_a_stream_that_was_closed_before_is_never_submitted(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> list[Any]:
        stream = own.stream(**TURN)
        await stream.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await stream
        return [event async for event in stream]

    assert in_a_loop(work) == []
    assert cycle.count("instructions") == 0


def test_a_closed_client_opens_no_stream(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> None:
        stream = own.stream(**TURN)
        await own.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await stream

    in_a_loop(work)

    assert cycle.count("instructions") == 0


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_keeps_a_stream_from_being_opened_is_raised(
    cycle: Cycle, mq: Proxy, configure: Configure, spelling: Spelling
) -> None:
    configure(client_patience=0.5)
    mq.cut()

    with pytest.raises(Unavailable):
        in_a_loop(lambda own: spelling(own.stream(**TURN)))
    configure(client_patience=30.0)  # what follows asks PostgreSQL alone
    with pytest.raises(NotFound):
        in_a_loop(lambda own: spelling(own.follow(str(new_instruction_id()))))
    with pytest.raises(InvalidData):
        in_a_loop(lambda own: spelling(own.follow(str(new_instruction_id()), starting_after=-1)))

    assert followed() == 0


def test_a_coroutine_cancelled_as_it_opens_a_stream_leaves_no_follower(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    configure(client_patience=60.0)

    async def work(own: AsyncLLMChatLinkerClient) -> None:
        async with own.stream(**TURN):
            db.freeze()
            opening = asyncio.create_task(own.stream(**TURN).opened())
            await until(lambda: followed() == 2)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            db.thaw()
            await until(lambda: cycle.count("instructions") == 2)
            await until(lambda: followed() == 1)

    try:
        in_a_loop(work)
    finally:
        db.thaw()
