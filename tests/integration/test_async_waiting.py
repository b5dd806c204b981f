"""What asyncio is for: event loops that never stand still, and coroutines that wait without threads."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.errors import Unavailable
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.loops import client_threads, heartbeat, until
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker, environment
from tests.servers.proxy import Proxy

FORK = """
import asyncio, os, sys, threading
from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.errors import ResultTimeout

client = AsyncLLMChatLinkerClient(threads=2)

async def use():
    result = await client.submit("USER_LIST")
    try:
        await result.get(timeout=0.2)
    except ResultTimeout:
        return True

assert asyncio.run(use())
pid = os.fork()
if pid == 0:
    try:
        threading.Timer(120, lambda: os._exit(3)).start()
        os._exit(0 if asyncio.run(use()) else 1)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(2)
_, status = os.waitpid(pid, 0)
assert asyncio.run(use())
print(os.waitstatus_to_exitcode(status), flush=True)
"""


def waited_for() -> int:
    """How many ids the process waits for."""
    return len(wakeups()._waiting)


# --- the loop goes on ---------------------------------------------------------------------------


def test_a_loop_goes_on_while_500_instructions_are_under_way(
    cycle: Cycle, worker: StartWorker
) -> None:
    worker(concurrency=16)

    async def main() -> tuple[list[Any], int]:
        async with AsyncLLMChatLinkerClient(threads=4) as client, heartbeat() as heart:
            envelopes = await asyncio.gather(*[client.list_users() for _ in range(500)])
        assert heart.beats > 20
        return envelopes, heart.threads

    envelopes, threads = asyncio.run(main())

    assert [envelope["status"] for envelope in envelopes] == ["success"] * 500
    assert len({envelope["instruction_id"] for envelope in envelopes}) == 500
    assert threads <= 4


def test_a_loop_goes_on_while_the_broker_is_frozen(cycle: Cycle, mq: Proxy) -> None:
    async def main() -> None:
        async with AsyncLLMChatLinkerClient(threads=2) as client, heartbeat() as heart:
            await client.submit("USER_LIST")
            mq.freeze()
            submissions = [asyncio.create_task(client.submit("USER_LIST")) for _ in range(5)]
            await heart.more(20)
            assert not any(task.done() for task in submissions)
            outcomes = await asyncio.gather(*submissions[:2], return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
            mq.thaw()
            await asyncio.gather(*submissions[2:], return_exceptions=True)
            assert (await client.submit("USER_LIST")).id

    try:
        asyncio.run(main())
    finally:
        mq.thaw()


def test_a_loop_goes_on_while_the_database_is_frozen(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    configure(client_patience=60.0)

    async def main() -> None:
        async with AsyncLLMChatLinkerClient(threads=2) as client, heartbeat() as heart:
            first = await client.submit("USER_LIST")
            waiting = asyncio.create_task(first.get())
            await until(waited_for)
            db.freeze()
            submissions = [asyncio.create_task(client.submit("USER_LIST")) for _ in range(5)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.submit("USER_LIST")
            await heart.more(20)
            assert not any(task.done() for task in (waiting, *submissions))
            db.thaw()
            await asyncio.gather(*submissions)
            cycle.finish(UUID(first.id))
            assert (await waiting)["status"] == "success"

    try:
        asyncio.run(main())
    finally:
        db.thaw()


# --- threads ------------------------------------------------------------------------------------


def test_ten_thousand_waiting_coroutines_take_no_more_threads_than_one(cycle: Cycle) -> None:
    ids = [f"{number:08x}-0000-7000-8000-000000000000" for number in range(1, 10_001)]
    cycle.sql(
        "INSERT INTO instructions (id, type, data, deadline_at)"
        " SELECT CAST(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000' AS uuid),"
        " 'USER_LIST', '{}', now() + interval '1 hour' FROM generate_series(1, 10000) n"
    )

    async def main() -> list[Any]:
        async with AsyncLLMChatLinkerClient() as client:
            waiting = [asyncio.create_task(client.result(ids[0]).get())]
            await until(lambda: cycle.count("waiters") == 1)
            threads = threading.active_count()
            waiting += [asyncio.create_task(client.result(i).get(timeout=120)) for i in ids[1:]]
            await until(lambda: waited_for() == 10_000)
            assert threading.active_count() == threads
            cycle.sql(
                "UPDATE instructions SET state = 'final', final_at = now(), outcome ="
                " jsonb_build_object('status', 'success', 'instruction_id', id)"
            )
            envelopes = await asyncio.gather(*waiting)
            assert threading.active_count() == threads
            return envelopes

    envelopes = asyncio.run(main())

    assert [envelope["instruction_id"] for envelope in envelopes] == ids
    assert waited_for() == 0


def test_more_submissions_than_threads_wait_for_their_turn(cycle: Cycle) -> None:
    async def main() -> None:
        async with AsyncLLMChatLinkerClient(threads=2) as client, heartbeat() as heart:
            results = await asyncio.gather(*[client.submit("USER_LIST") for _ in range(100)])
            assert len({result.id for result in results}) == 100
        assert heart.threads == 2

    asyncio.run(main())

    eventually(lambda: cycle.broker.ready("control") == 100)
    eventually(lambda: client_threads() == 0)


def test_a_client_closed_meanwhile_still_submits_what_it_was_given(cycle: Cycle) -> None:
    async def main() -> None:
        async with AsyncLLMChatLinkerClient(threads=1) as client:
            submissions = [asyncio.create_task(client.submit("USER_LIST")) for _ in range(10)]
            await asyncio.sleep(0)  # they are on their way
        await asyncio.gather(*submissions)

    asyncio.run(main())

    eventually(lambda: cycle.broker.ready("control") == 10)


# --- who no longer waits ------------------------------------------------------------------------


def test_cancelled_coroutines_leave_nothing_and_their_instructions_go_on(cycle: Cycle) -> None:
    async def main() -> list[str]:
        async with AsyncLLMChatLinkerClient() as client:
            results = await asyncio.gather(*[client.submit("USER_LIST") for _ in range(20)])
            waiting = [asyncio.create_task(result.get()) for result in results * 2]
            await until(lambda: waited_for() == 20)
            for task in waiting:
                task.cancel()
            ends = await asyncio.gather(*waiting, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            assert waited_for() == 0
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await results[0].get(timeout=30)
            assert waited_for() == 0
            return [result.id for result in results]

    ids = asyncio.run(main())

    assert all(cycle.finish(UUID(text)) for text in ids)


def test_one_of_two_that_is_cancelled_does_not_take_the_others_result(cycle: Cycle) -> None:
    async def main() -> None:
        async with AsyncLLMChatLinkerClient() as client:
            result = await client.submit("USER_LIST")
            leaves, stays = (asyncio.create_task(result.get()) for _ in range(2))
            await until(waited_for)
            leaves.cancel()
            cycle.finish(UUID(result.id))
            assert (await stays)["status"] == "success"

    asyncio.run(main())


def test_a_cancelled_submission_that_had_no_thread_yet_is_never_submitted(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    configure(client_patience=60.0)

    async def main() -> None:
        async with AsyncLLMChatLinkerClient(threads=1) as client:
            await client.submit("USER_LIST")
            db.freeze()
            first, second = (asyncio.create_task(client.submit("USER_LIST")) for _ in range(2))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            db.thaw()
            await first

    try:
        asyncio.run(main())
    finally:
        db.thaw()
    assert cycle.count("instructions") == 2


def test_a_loop_that_was_closed_meanwhile_harms_nobody_else(cycle: Cycle) -> None:
    client = AsyncLLMChatLinkerClient()
    loop = asyncio.new_event_loop()
    result = loop.run_until_complete(client.submit("USER_LIST"))
    left = loop.create_task(result.get())
    loop.run_until_complete(until(waited_for))
    loop.close()

    def finish() -> str:
        eventually(lambda: len(wakeups()._waiting.get(result.id, [])) == 2)
        cycle.finish(UUID(result.id))
        return "success"

    got = at_once([lambda: InstructionResult(result.id).get(timeout=30)["status"], finish])

    assert set(got) == {"success"}
    assert not left.done()
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # it has no loop to end in
    asyncio.run(client.aclose())


# --- loops and processes ------------------------------------------------------------------------


def test_two_loops_in_two_threads_each_have_their_client(cycle: Cycle, worker: StartWorker) -> None:
    worker()

    def loop() -> list[str]:
        async def main() -> list[str]:
            async with AsyncLLMChatLinkerClient(threads=2) as client:
                envelopes = await asyncio.gather(*[client.list_users() for _ in range(30)])
                return [envelope["status"] for envelope in envelopes]

        return asyncio.run(main())

    assert at_once([loop, loop]) == [["success"] * 30] * 2


def test_a_client_goes_on_after_a_fork_on_both_sides(cycle: Cycle, configure: Configure) -> None:
    configure(fallback_interval=2.0)
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK],
        env=environment(get_settings()),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (done.stdout.strip(), done.stderr, done.returncode) == ("0", "", 0)
    assert cycle.count("instructions") == 3
