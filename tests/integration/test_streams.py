"""Streams from end to end: a provider on the real wire, the stages or real workers, and followers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchatlinker.async_client import AsyncLLMChatLinkerClient
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming.responses import ResponseStream
from tests.fixtures.scenes import Scene
from tests.fixtures.servers import PostgresServer
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker, environment
from tests.servers import scripts
from tests.servers.proxy import Proxy
from tests.servers.shapes import openai_chunk

FOLLOW = """
import json, sys
from llmchatlinker.client import LLMChatLinkerClient
for event in LLMChatLinkerClient().follow(sys.argv[1], starting_after=int(sys.argv[2])):
    print(json.dumps(event.as_dict()), flush=True)
"""


@pytest.fixture
def client(scene: Scene) -> LLMChatLinkerClient:
    return LLMChatLinkerClient()


def whole(stream: ResponseStream) -> str:
    """The text of all deltas; AssertionError where a number is missing or there twice."""
    events = list(stream)
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    assert [event.is_last for event in events].count(True) == 1
    return "".join(event.text for event in events)


def stored(scene: Scene, instruction_id: str) -> str:
    """What the answer's message says."""
    rows = scene.cycle.sql(
        "SELECT content FROM messages WHERE instruction_id = :id AND role = 'assistant'",
        id=instruction_id,
    )
    return str(rows[0][0])


# --- the same text everywhere -------------------------------------------------------------------


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60), seed=st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_the_deltas_are_the_stored_message_however_they_come(
    scene: Scene, client: LLMChatLinkerClient, text: str, seed: list[int]
) -> None:
    wire = b"".join(openai_chunk({"content": character}) for character in text)
    wire += openai_chunk({}, "stop") + b"data: [DONE]\n\n"
    pieces = []
    while wire:
        size = seed[len(pieces) % len(seed)] ** 3
        pieces.append(wire[:size])
        wire = wire[size:]
    scene.provider.script(scripts.stream(*pieces))

    stream = client.stream(**scene.turn, user_input="Speak.")
    scene.cycle.finish(UUID(stream.instruction_id))

    assert whole(stream) == stored(scene, stream.instruction_id)


def test_tool_calls_and_reasoning_come_as_deltas(scene: Scene, client: LLMChatLinkerClient) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    scene.provider.script(scripts.answer("Done.", reasoning_content="Hmm, so.", tool_calls=[call]))

    stream = client.stream(**scene.turn, user_input="Do it.")
    scene.cycle.finish(UUID(stream.instruction_id))
    events = list(stream)

    calls = [event.data for event in events if event.data.get("kind") == "tool_call"]
    assert "".join(event.reasoning for event in events) == "Hmm, so."
    assert stream.text == "Done."
    assert "".join(data["text"] for data in calls) == '{"a": 1}'
    assert (calls[0]["id"], calls[0]["name"]) == ("c1", "f")


def test_a_stream_tells_of_its_message_and_its_usage(
    scene: Scene, client: LLMChatLinkerClient
) -> None:
    stream = client.stream(**scene.turn, user_input="Hello there")
    scene.cycle.finish(UUID(stream.instruction_id))
    events = {event.type: event.data for event in stream}
    answer = stream.result().get(timeout=60)["data"]["llm_response"]

    assert events["response.created"]["message_id"] == answer["message_id"]
    assert events["response.created"]["llm_name"] == "echo"
    assert events["response.usage"]["usage"] == answer["usage"]
    assert events["response.completed"]["message_id"] == answer["message_id"]
    assert events["response.completed"]["finish_reason"] == "stop"


def test_a_regeneration_streams_too(scene: Scene, client: LLMChatLinkerClient) -> None:
    answer = scene.ask("one")

    stream = client.stream(message_id=answer["message_id"])
    scene.cycle.finish(UUID(stream.instruction_id))

    assert whole(stream) == answer["content"]


def test_an_answer_that_breaks_off_ends_as_failed_with_what_came(
    scene: Scene, client: LLMChatLinkerClient
) -> None:
    said = openai_chunk({"content": "half of "})
    scene.provider.script(scripts.stream(said, 0.2, ending="reset"))

    stream = client.stream(**scene.turn, user_input="Speak.")
    scene.cycle.finish(UUID(stream.instruction_id))
    events = list(stream)

    assert events[-1].type == "response.failed"
    assert events[-1].data["error"]["code"] == "provider_error"
    assert stream.text == "half of " == stored(scene, stream.instruction_id)


# --- asyncio ------------------------------------------------------------------------------------


def test_coroutines_stream_and_follow(scene: Scene, worker: StartWorker) -> None:
    worker()
    scene.provider.script(scripts.slow(20, 40))

    async def follow(client: AsyncLLMChatLinkerClient, instruction_id: str) -> str:
        async with await client.follow(instruction_id) as stream:
            return "".join([event.text async for event in stream])

    async def run() -> list[str]:
        async with AsyncLLMChatLinkerClient() as client:
            stream = await client.stream(**scene.turn, user_input="Count.")
            others = asyncio.gather(*[follow(client, stream.instruction_id) for _ in range(50)])
            text = "".join([event.text async for event in stream])
            assert (await client.result(stream.instruction_id).get(timeout=30))[
                "status"
            ] == "success"
            return [text, *await others]

    texts = asyncio.run(run())

    assert set(texts) == {" ".join(map(str, range(20)))}


# --- other processes ----------------------------------------------------------------------------


def test_another_process_follows_from_the_middle(
    scene: Scene, client: LLMChatLinkerClient, worker: StartWorker
) -> None:
    worker()
    scene.provider.script(scripts.slow(60, 30))
    stream = client.stream(**scene.turn, user_input="Count.")
    for event in stream:
        if event.sequence_number == 20:
            break

    with subprocess.Popen(
        [sys.executable, "-c", FOLLOW, stream.instruction_id, "20"],
        env=environment(get_settings()),
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        rest = list(stream)
        assert other.stdout is not None
        seen = [json.loads(line) for line in other.stdout]

    assert seen == [event.as_dict() for event in rest]
    assert stream.text == stored(scene, stream.instruction_id)


def test_a_worker_that_dies_leaves_its_followers_the_end_that_is_decided(
    scene: Scene, client: LLMChatLinkerClient, worker: StartWorker
) -> None:
    worker("control", "database", "llm", sweep_interval=0.2, sweep_grace=0.5)
    first = worker("llm.generate", lease=1.0)
    scene.provider.script(scripts.slow(1_000, 50))
    stream = client.stream(**scene.turn, user_input="Count.")
    for event in stream:
        if event.sequence_number == 10:
            break
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    worker("llm.generate", lease=1.0)

    last = list(stream)[-1]

    assert last.type == "response.failed"
    assert last.data["status"] == "in_doubt"
    assert stream.text == stored(scene, stream.instruction_id) != ""
    assert len(scene.provider.calls) == 1


# --- servers that are gone ----------------------------------------------------------------------


def test_a_follower_survives_the_broker(
    scene: Scene, mq: Proxy, client: LLMChatLinkerClient
) -> None:
    scene.provider.script(scripts.slow(60, 40))
    stream = client.stream(**scene.turn, user_input="Count.")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(scene.cycle.finish, UUID(stream.instruction_id))
        for event in stream:
            if event.sequence_number == 10:
                mq.cut()
            if event.sequence_number == 30:
                mq.mend()
        running.result()

    assert stream.text == stored(scene, stream.instruction_id) == " ".join(map(str, range(60)))


def test_a_stream_survives_postgresql(scene: Scene, db: Proxy, client: LLMChatLinkerClient) -> None:
    scene.provider.script(scripts.slow(60, 40))
    stream = client.stream(**scene.turn, user_input="Count.")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(scene.cycle.finish, UUID(stream.instruction_id))
        for event in stream:
            if event.sequence_number == 10:
                db.cut()
                threading.Timer(0.7, db.mend).start()
        running.result()

    assert stream.text == stored(scene, stream.instruction_id) == " ".join(map(str, range(60)))


# --- many ---------------------------------------------------------------------------------------


def test_many_followers_in_a_process_need_no_more_connections_than_the_pool_has(
    scene: Scene,
    client: LLMChatLinkerClient,
    postgres_server: PostgresServer,
    worker: StartWorker,
) -> None:
    worker()
    scene.provider.script(scripts.slow(40, 20))
    name = str(scene.cycle.database.engine.url.database)
    stream = client.stream(**scene.turn, user_input="Count.")
    next(stream)

    async def follow(client: AsyncLLMChatLinkerClient) -> str:
        events = [event async for event in await client.follow(stream.instruction_id)]
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        return "".join(event.text for event in events)

    async def run() -> tuple[list[str], int]:
        async with AsyncLLMChatLinkerClient() as client:
            following = asyncio.gather(*[follow(client) for _ in range(1_000)])
            await asyncio.sleep(0)
            most = 0
            while not following.done():
                most = max(most, await asyncio.to_thread(postgres_server.connections, name))
                await asyncio.sleep(0.05)
            return await following, most

    texts, most = asyncio.run(run())

    assert set(texts) == {" ".join(map(str, range(40)))}
    assert most <= 2 * get_settings().database_pool_size  # the worker's and this process's


def test_many_streams_at_once_mix_nothing_up(
    scene: Scene, client: LLMChatLinkerClient, worker: StartWorker
) -> None:
    worker(concurrency=40)
    chats = [
        scene.cycle.do("CHAT_CREATE", title="One of many", user_ids=[scene.user_id])["chat"]
        for _ in range(30)
    ]
    scene.provider.script(*[scripts.slow(30, 60)] * len(chats))

    def one(chat_id: int) -> tuple[str, str]:
        turn: dict[str, Any] = scene.turn | {"chat_id": chat_id, "user_input": "Count."}
        stream = client.stream(**turn)
        return whole(stream), stream.instruction_id

    for text, instruction_id in at_once([lambda c=c: one(c["chat_id"]) for c in chats]):
        assert text == stored(scene, instruction_id) == " ".join(map(str, range(30)))
    eventually(lambda: scene.cycle.count("waiters") == 0)
