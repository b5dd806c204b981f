"""The SDK for asyncio: what comes back is what the blocking client gives, one for all outcomes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import (
    Conflict,
    InvalidData,
    LLMChatLinkerError,
    NotFound,
    ResultTimeout,
    Unavailable,
)
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_LIST
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.loops import heartbeat
from tests.fixtures.workers import StartWorker
from tests.servers.proxy import Proxy

client = LLMChatLinkerClient()

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("get_user", {"username": "user 1"}),
    ("list_users", {"limit": 3}),
    ("get_user", {"username": "nobody"}),
    ("get_user", {"user_id": "ten"}),
    ("create_user", {"username": "user 1"}),
    ("create_user", {"username": "a\x00b"}),
    ("create_user", {"username": "bob", "colour": "red"}),
    ("create_user", {"username": "bob", "deadline": -1}),
    ("create_user", {"username": "bob", "deadline": "soon"}),
    ("create_user", {"username": "bob", "idempotency_key": ""}),
    ("run", {"type": "USER_DANCE"}),
    ("generate_llm_response", {"user_id": 1, "chat_id": 77, "llm_id": 1, "user_input": "Hello"}),
    ("cancel_llm_response", {"instruction_id": str(new_instruction_id())}),
]


@pytest.fixture
def served(cycle: Cycle, worker: StartWorker) -> Cycle:
    """Seven users, and a worker that serves everything."""
    cycle.sql("INSERT INTO users (username) SELECT 'user ' || n FROM generate_series(1, 7) n")
    worker()
    return cycle


def in_a_loop(work: Callable[[AsyncLLMChatLinkerClient], Awaitable[Any]]) -> Any:
    """What the work gives, in an event loop and with a client of its own."""

    async def main() -> Any:
        async with AsyncLLMChatLinkerClient() as own:
            return await work(own)

    return asyncio.run(main())


def called(target: Any, name: str, arguments: dict[str, Any]) -> Any:
    first = [arguments["type"]] if "type" in arguments else []
    more = {key: value for key, value in arguments.items() if key != "type"}
    return getattr(target, name)(*first, **more)


def without_id(envelope: Any) -> Any:
    return envelope | {"instruction_id": envelope["instruction_id"] and "an id"}


def test_envelopes_are_those_of_the_blocking_client(served: Cycle) -> None:
    async def all_of_them(own: AsyncLLMChatLinkerClient) -> list[Any]:
        return await asyncio.gather(*[called(own, name, data) for name, data in CALLS])

    envelopes = in_a_loop(all_of_them)

    blocking = [called(client, name, data) for name, data in CALLS]
    assert [without_id(e) for e in envelopes] == [without_id(e) for e in blocking]
    assert {e["status"] for e in envelopes} == {"success", "error"}


def test_a_result_has_an_id_and_anybody_can_get_it_by_that(served: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> tuple[str, Any, Any]:
        result = await own.submit(USER_LIST, limit=2)
        return result.id, await result.get(timeout=60), await own.result(result.id).get(timeout=0)

    instruction_id, envelope, again = in_a_loop(work)

    assert envelope == again == client.result(instruction_id).get(timeout=60)
    assert envelope is not again


def test_a_result_says_its_state_and_whether_it_is_there(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> list[Any]:
        result = await own.submit(USER_LIST)
        seen: list[Any] = [await result.state(), await result.ready()]
        cycle.decode(UUID(result.id))
        seen += [await result.state(), await result.ready()]
        cycle.execute(UUID(result.id))
        cycle.store(UUID(result.id))
        return [*seen, await result.state(), await result.ready()]

    assert in_a_loop(work) == ["PENDING", False, "STARTED", False, "SUCCESS", True]


def test_a_revoked_result_ends_as_cancelled(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> Any:
        result = await own.submit(USER_LIST)
        await own.result(result.id).revoke()
        return await result.get(timeout=60)

    assert failure(in_a_loop(work)).code == "cancelled"


def test_a_loop_goes_on_while_the_state_of_a_result_is_asked_for(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    configure(client_patience=60.0)

    async def work(own: AsyncLLMChatLinkerClient) -> None:
        result = await own.submit(USER_LIST)
        async with heartbeat() as heart:
            db.freeze()
            asked = [
                asyncio.create_task(result.state()),
                asyncio.create_task(result.ready()),
                asyncio.create_task(result.revoke()),
            ]
            await heart.more(20)
            assert not any(task.done() for task in asked)
            db.thaw()
            await asyncio.gather(*asked)

    try:
        in_a_loop(work)
    finally:
        db.thaw()


def test_pages_come_one_after_the_other(served: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> tuple[list[int], list[Any]]:
        sizes = [len(page["data"]["users"]) async for page in own.pages(USER_LIST, limit=3)]
        return sizes, [page async for page in own.pages("CHAT_EXPORT", chat_id=77)]

    sizes, (refused,) = in_a_loop(work)

    assert sizes == [3, 3, 1]
    assert failure(refused).code == "not_found"


def test_one_idempotency_key_is_one_instruction(served: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> list[Any]:
        many = [own.create_user("bob", idempotency_key="k1") for _ in range(20)]
        first, *others = await asyncio.gather(*many)
        assert all(other == first for other in others)
        # Each its own: what one does with its envelope is not seen by another.
        assert len({id(envelope["data"]) for envelope in (first, *others)}) == 20
        with pytest.raises(Conflict):
            await own.submit("USER_CREATE", username="eve", idempotency_key="k1")
        return [first, await own.create_user("eve", idempotency_key="k1")]

    first, other = in_a_loop(work)

    assert first["status"] == "success"
    assert failure(other).code == "conflict"
    assert served.count("users", "username = 'bob'") == 1


def test_without_a_worker_a_deadline_ends_the_waiting(cycle: Cycle) -> None:
    envelope = in_a_loop(lambda own: own.list_users(deadline=0.3))

    assert failure(envelope).code == "deadline_exceeded"


Work = Callable[[AsyncLLMChatLinkerClient], Awaitable[Any]]


async def too_short(own: AsyncLLMChatLinkerClient) -> None:
    await (await own.submit("USER_LIST")).get(timeout=0.1)


async def not_yet(own: AsyncLLMChatLinkerClient) -> None:
    await (await own.submit("USER_LIST")).get(timeout=0)


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda own: own.submit("USER_LIST", deadline=-1), InvalidData),
        (lambda own: own.result(str(new_instruction_id())).get(timeout=60), NotFound),
        (lambda own: own.result(str(new_instruction_id())).get(), NotFound),
        (lambda own: own.result(str(new_instruction_id())).get(timeout=0), NotFound),
        (too_short, ResultTimeout),
        (not_yet, ResultTimeout),
    ],
)
def test_what_keeps_an_envelope_from_coming_is_raised(
    cycle: Cycle, work: Work, error: type[LLMChatLinkerError]
) -> None:
    with pytest.raises(error):
        in_a_loop(work)


def test_a_timeout_names_the_seconds_that_were_waited(cycle: Cycle) -> None:
    with pytest.raises(ResultTimeout, match=r"not done after 0\.1 s"):
        in_a_loop(too_short)


def test_a_broker_that_is_gone_is_raised_and_nothing_will_run(cycle: Cycle, mq: Proxy) -> None:
    mq.cut()

    with pytest.raises(Unavailable):
        in_a_loop(lambda own: own.list_users())

    assert cycle.count("instructions", "state = 'withdrawn'") == 1


def test_a_database_that_is_gone_is_raised_and_nothing_will_run(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    configure(client_patience=0.5)
    db.cut()

    with pytest.raises(Unavailable):
        in_a_loop(lambda own: own.list_users())

    assert cycle.count("instructions") == 0


def test_a_closed_client_submits_nothing_and_still_knows_its_results(cycle: Cycle) -> None:
    async def work(own: AsyncLLMChatLinkerClient) -> Any:
        result = await own.submit("USER_LIST")
        await own.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await own.submit("USER_LIST")
        with pytest.raises(ResultTimeout):
            await result.get(timeout=0.05)
        cycle.finish(UUID(result.id))
        return await result.get()

    assert in_a_loop(work)["status"] == "success"


def test_a_client_without_threads_is_none() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AsyncLLMChatLinkerClient(threads=0)
