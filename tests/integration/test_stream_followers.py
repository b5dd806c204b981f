"""Following a response: from its own process and others, from the beginning and from the middle."""

from __future__ import annotations

import gc
import subprocess
import sys
from uuid import UUID

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import InvalidData, NotFound
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.settings import Settings, get_settings
from llmchatlinker.streaming.following import following
from llmchatlinker.streaming.responses import ResponseStream
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.streams import Produce
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import environment

FORK = """
import os, sys, threading
from llmchatlinker.client import LLMChatLinkerClient

def numbers():
    return [event.sequence_number for event in LLMChatLinkerClient().follow(sys.argv[1])]

expected = [1, 2, 3]
assert numbers() == expected
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        threading.Timer(120, lambda: os._exit(3)).start()
        try:
            os._exit(0 if numbers() == expected else 1)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(2)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    assert numbers() == expected
"""

TURN = {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "Who?"}


@pytest.fixture
def client(cycle: Cycle) -> LLMChatLinkerClient:
    return LLMChatLinkerClient()


def whole(stream: ResponseStream) -> str:
    """The text of all deltas; AssertionError where a number is missing or there twice."""
    numbers, texts = [], []
    for event in stream:
        numbers.append(event.sequence_number)
        texts.append(event.text)
    assert numbers == list(range(1, len(numbers) + 1))
    return "".join(texts)


# --- who asks -----------------------------------------------------------------------------------


def test_a_stream_yields_the_answer_while_it_is_generated(
    client: LLMChatLinkerClient, produce: Produce, configure: Configure
) -> None:
    configure(fallback_interval=60.0)
    stream = client.stream(**TURN)
    response = produce(UUID(stream.instruction_id))

    assert next(stream).type == "response.created"
    response.say("Hel")
    assert next(stream).text == "Hel"
    response.say("lo")
    assert next(stream).text == "lo"
    response.finish("Hello")
    last = next(stream)

    assert (last.type, last.sequence_number, last.is_last) == ("response.completed", 4, True)
    assert last.data["message_id"] == 2
    assert list(stream) == []
    assert stream.text == "Hello"
    assert stream.result().get(timeout=60)["status"] == "success"


def test_pushes_alone_keep_a_follower_going(
    client: LLMChatLinkerClient,
    produce: Produce,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(fallback_interval=60.0)
    following().queue()
    eventually(lambda: following().replies.connected)  # so that no look is due when it follows
    stream = client.stream(**TURN)
    response = produce(UUID(stream.instruction_id))
    assert next(stream).type == "response.created"
    looks: list[object] = []
    monkeypatch.setattr("llmchatlinker.streaming.reading.read", looks.append)

    for word in ("a", "b", "c"):
        response.say(word)
        assert next(stream).text == word
    response.finish("abc")

    assert next(stream).is_last
    assert looks == []


def test_a_follower_joins_in_the_middle(client: LLMChatLinkerClient, produce: Produce) -> None:
    response = produce()
    response.say("Hello ")
    eventually(lambda: response.texts() == "Hello ")

    stream = client.follow(response.id)
    assert [next(stream).type for _ in range(2)] == ["response.created", "response.delta"]
    eventually(lambda: response.cycle.count("waiters", "following") == 1)
    response.say("there")
    assert next(stream).text == "there"
    response.finish("Hello there")

    assert next(stream).is_last
    assert response.cycle.count("waiters") == 0


def test_a_follower_goes_on_where_it_left(client: LLMChatLinkerClient, produce: Produce) -> None:
    response = produce()
    response.say("one ", "two ", "three")
    response.finish("one two three")

    later = list(client.follow(response.id, starting_after=2))

    assert [event.sequence_number for event in later] == [3, 4, 5]
    assert [event.text for event in later] == ["two ", "three", ""]
    assert list(client.follow(response.id, starting_after=5)) == []


def test_a_snapshot_stands_for_what_came_before(
    client: LLMChatLinkerClient, produce: Produce
) -> None:
    response = produce()
    response.say("Hello ", "there")
    eventually(lambda: response.texts() == "Hello there")

    stream = client.follow(response.id, snapshot=True)
    snapshot = next(stream)
    assert (snapshot.type, snapshot.text) == ("response.snapshot", "Hello there")
    assert snapshot.sequence_number == 3
    assert snapshot.data["message_id"] == 2
    response.say("!")
    response.finish("Hello there!")

    assert [(event.sequence_number, event.text) for event in stream] == [(4, "!"), (5, "")]
    assert stream.text == "Hello there!"


def test_many_followers_of_one_response_see_the_same(
    client: LLMChatLinkerClient, produce: Produce
) -> None:
    response = produce()
    streams = [client.follow(response.id) for _ in range(20)]

    def speak() -> str:
        for number in range(300):
            response.say(f"{number} ")
        response.finish()
        return text

    text = "".join(f"{number} " for number in range(300))
    assert set(at_once([speak, *[lambda s=s: whole(s) for s in streams]])) == {text}


def test_an_instruction_that_is_refused_has_one_event(
    client: LLMChatLinkerClient, cycle: Cycle
) -> None:
    stream = client.stream(**TURN | {"user_input": ""})
    cycle.finish(UUID(stream.instruction_id))

    (event,) = list(stream)

    assert (event.sequence_number, event.type) == (1, "response.failed")
    assert event.data["error"]["code"] == "invalid_data"
    assert [e.as_dict() for e in client.follow(stream.instruction_id)] == [event.as_dict()]


def test_a_deadline_ends_a_stream_that_nobody_works_at(
    client: LLMChatLinkerClient, cycle: Cycle
) -> None:
    (event,) = list(client.stream(**TURN, deadline=0.2))

    assert event.data["error"]["code"] == "deadline_exceeded"


def test_the_same_key_follows_the_same_response(
    client: LLMChatLinkerClient, produce: Produce
) -> None:
    first = client.stream(**TURN, idempotency_key="once")
    second = client.stream(**TURN, idempotency_key="once")
    response = produce(UUID(first.instruction_id))
    response.say("Hello")
    response.finish("Hello")

    assert second.instruction_id == first.instruction_id
    assert [whole(first), whole(second)] == ["Hello", "Hello"]


# --- who can't ----------------------------------------------------------------------------------


def test_an_id_of_nobody_is_not_found(client: LLMChatLinkerClient) -> None:
    with pytest.raises(NotFound):
        client.follow(str(new_instruction_id()))


def test_what_is_no_generation_has_no_events(client: LLMChatLinkerClient, cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")

    with pytest.raises(InvalidData, match="not a generation"):
        client.follow(str(instruction_id))


@pytest.mark.parametrize("wrong", [{"starting_after": -1}, {"starting_after": 3, "snapshot": True}])
def test_a_number_of_no_event_is_refused(
    client: LLMChatLinkerClient, wrong: dict[str, int]
) -> None:
    with pytest.raises(InvalidData, match="starting_after"):
        client.follow(str(new_instruction_id()), **wrong)  # type: ignore[arg-type]


# --- who leaves, and who is slow ----------------------------------------------------------------


def test_leaving_the_loop_leaves_the_response_going(
    client: LLMChatLinkerClient, produce: Produce
) -> None:
    response = produce()
    for event in client.follow(response.id):
        assert event.type == "response.created"
        eventually(lambda: response.cycle.count("waiters", "following") == 1)
        break
    gc.collect()

    eventually(lambda: response.cycle.count("waiters") == 0)
    response.say("Hello")
    response.finish("Hello")
    assert response.stopped == []
    assert whole(client.follow(response.id)) == "Hello"


def test_a_closed_stream_has_no_more_events(client: LLMChatLinkerClient, produce: Produce) -> None:
    response = produce()

    with client.follow(response.id) as stream:
        pass

    assert list(stream) == []


def test_a_follower_that_stops_for_a_while_gets_everything(
    client: LLMChatLinkerClient, produce: Produce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmchatlinker.streaming.follower.ROOM", 10)
    response = produce()
    stream = client.follow(response.id)
    words = [f"{number} " for number in range(500)]

    for word in words:
        response.say(word)
    eventually(lambda: len(response.texts()) == len("".join(words)))
    response.finish("".join(words))

    assert whole(stream) == "".join(words)


# --- other ways ---------------------------------------------------------------------------------


def test_where_nothing_is_pushed_followers_look(
    client: LLMChatLinkerClient, produce: Produce, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "broker_is_embedded", property(lambda self: True))
    stream = client.stream(**TURN)
    response = produce(UUID(stream.instruction_id))
    other = client.follow(response.id)

    for word in ("a", "b", "c"):
        response.say(word)
        while not (event := next(stream)).text:
            pass
        assert event.text == word
    response.finish("abc")

    assert next(stream).is_last
    assert whole(other) == "abc"
    assert not following().replies.connected


def test_a_forked_child_follows_on_its_own(produce: Produce) -> None:
    response = produce()
    response.say("Hello")
    response.finish("Hello")

    found = subprocess.run(
        [sys.executable, "-c", FORK, response.id],
        env=environment(get_settings()),
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )

    assert (found.returncode, found.stdout.split()) == (0, ["0", "0"])
