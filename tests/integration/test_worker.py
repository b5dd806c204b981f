"""A real worker: what it runs, what it refuses to understand, and how it goes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
import zlib
from typing import Any
from uuid import uuid4

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.dead_letters.collecting import collect
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import INSTRUCTION_SET, USER_CREATE, USER_LIST
from llmchatlinker.orchestrator import publish
from llmchatlinker.stage_messages import AGAIN
from llmchatlinker.topology import DEAD_LETTER_QUEUE, DECODE_TASK, EXCHANGE
from tests.fixtures.brokers import Broker
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually, holds
from tests.fixtures.workers import StartWorker
from tests.servers import early_steps, poison, scripts
from tests.servers.proxy import Proxy

MARK = "xyzzy"
NEVER = 600.0


def headers(task: str = DECODE_TASK, **more: Any) -> dict[str, Any]:
    """What Celery puts beside a message (its protocol 2)."""
    task_id = str(uuid4())
    return {"lang": "py", "task": task, "id": task_id, "root_id": task_id} | more


def body(*arguments: object, **keywords: object) -> bytes:
    embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    return json.dumps([arguments, keywords, embed]).encode()


#: Messages that no worker can make sense of, each with a text that belongs in no log.
NONSENSE: dict[str, dict[str, Any]] = {
    "a pickle": {
        "body": pickle.dumps([[MARK], {}, {}]),
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
        "headers": headers(),
    },
    "yaml": {"body": b"- xyzzy", "content_type": "application/x-yaml", "headers": headers()},
    "plain text": {"body": b"xyzzy", "content_type": "text/plain", "headers": {}},
    "an unknown type": {"body": b"xyzzy", "content_type": "x/y", "headers": headers()},
    "broken JSON": {"body": b'[["xyzzy"', "headers": headers()},
    "no UTF-8": {"body": b'["xyzzy \xff\xfe"]', "headers": headers()},
    "an unknown encoding": {
        "body": body(MARK),
        "content_encoding": "klingon",
        "headers": headers(),
    },
    "nothing": {"body": b"", "headers": headers()},
    "no headers": {"body": body(MARK), "headers": {}},
    "foreign headers": {"body": b'{"xyzzy": 1}', "headers": {"x-app": "another", "n": 5}},
    "a number": {"body": b"5", "headers": headers()},
    "null": {"body": b"null", "headers": headers()},
    "a text": {"body": b'"xyzzy"', "headers": headers()},
    "an object": {"body": b'{"xyzzy": 1}', "headers": headers()},
    "a short list": {"body": b'["xyzzy"]', "headers": headers()},
    "arguments that are none": {"body": b'["xyzzy", 5, null]', "headers": headers()},
    "no id": {"body": body(MARK), "headers": headers()},
    "an id of Celery's": {"body": body(str(uuid4())), "headers": headers()},
    "too many arguments": {"body": body(str(new_instruction_id()), MARK), "headers": headers()},
    "no arguments": {"body": body(), "headers": headers()},
    "a keyword": {"body": body(xyzzy=1), "headers": headers()},
    "a task of nobody": {"body": body(MARK), "headers": headers("xyzzy.task")},
    "a task that is no text": {"body": body(MARK), "headers": headers() | {"task": 5}},
    "an id that is no text": {"body": body(MARK), "headers": headers() | {"id": 5}},
    "a bad time": {"body": body(MARK), "headers": headers(eta="xyzzy")},
    "a bad end": {"body": body(MARK), "headers": headers(expires="xyzzy")},
}

#: What may stand in the headers of a message that is right otherwise.
ODD_HEADERS: list[dict[str, Any]] = [
    {"timelimit": "xyzzy"},
    {"timelimit": [5]},
    {"retries": "xyzzy"},
    {"ignore_result": []},
    {"shadow": 5},
    {"root_id": 5},
    {"root_id": "xyzzy"},
    {"parent_id": {"xyzzy": 1}},
    {"group": [1]},
    {"expires": 5},
    {"eta": 5},
    {"eta": "2001-01-01T00:00:00"},
    {"expires": "2001-01-01T00:00:00+00:00"},
    {"origin": 5, "lang": 5, "argsrepr": 5, "kwargsrepr": []},
    {"stamps": "xyzzy", "stamped_headers": 5},
    {"redelivered": "xyzzy", "delivery_info": 5, "hostname": 5},
]


def works(deadline: float = 30.0) -> bool:
    """Whether an instruction comes back."""
    return USER_LIST.apply_async(deadline=deadline).get(timeout=deadline + 5)["status"] == "success"


def test_messages_that_make_no_sense_are_dead_lettered_and_the_worker_lives_on(
    cycle: Cycle, worker: StartWorker
) -> None:
    process = worker(sweep_interval=NEVER)
    not_dead_lettered = []
    for name, message in NONSENSE.items():
        properties = {key: value for key, value in message.items() if key != "body"}
        cycle.broker.publish(message["body"], "control", EXCHANGE, **properties)
        if not holds(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1, 30):
            not_dead_lettered.append(name)
            process.stop(1)
            cycle.broker.take_all("control")
            process = worker(sweep_interval=NEVER)
        dead = [letter.body for letter in cycle.broker.take_all(DEAD_LETTER_QUEUE)]
        assert dead == [message["body"]] or name in not_dead_lettered

    assert not_dead_lettered == []
    assert works()
    assert MARK not in process.log_text()


def bomb() -> tuple[bytes, dict[str, Any]]:
    """A body that becomes a thousand times as large where it is inflated, and its headers."""
    inflated = body(str(new_instruction_id())) + b" " * 50_000_000
    return zlib.compress(inflated), headers(compression="application/x-gzip")


def test_a_compressed_message_is_dead_lettered_as_it_came(
    cycle: Cycle, worker: StartWorker
) -> None:
    process = worker(sweep_interval=NEVER)
    compressed, told = bomb()

    cycle.broker.publish(compressed, "control", EXCHANGE, headers=told)

    eventually(lambda: f"({len(compressed)} bytes" in process.log_text())
    assert works()


def test_a_compressed_dead_letter_is_kept_by_its_size(cycle: Cycle) -> None:
    cycle.broker.declare()
    compressed, told = bomb()
    cycle.broker.publish(compressed, DEAD_LETTER_QUEUE, headers=told)

    assert collect() == {"kept": 1}

    assert cycle.sql("SELECT size FROM dead_letters") == [(len(compressed),)]


def test_odd_headers_take_no_slot_for_ever(cycle: Cycle, worker: StartWorker) -> None:
    process = worker(concurrency=2)
    for odd in ODD_HEADERS:
        message = body(str(new_instruction_id()))
        cycle.broker.publish(message, "control", EXCHANGE, headers=headers() | odd)
    encoded = body(str(new_instruction_id()))
    cycle.broker.publish(
        encoded, "control", EXCHANGE, headers=headers(), content_encoding="klingon"
    )

    assert works()

    assert process.alive
    assert cycle.broker.ready("control") == 0


def test_dead_letters_have_their_queue_before_the_first_message_is_taken(
    broker: Broker, worker: StartWorker
) -> None:
    # AMQP: class 60, method 20 (basic.consume), a reserved short, the queue's name.
    consume = b"\x00\x3c\x00\x14\x00\x00\x07control"
    with Proxy(broker.url) as proxy:
        worker("control", broker_url=proxy.url)
        eventually(lambda: consume in proxy.said)

        assert 0 < proxy.said.find(DEAD_LETTER_QUEUE.encode()) < proxy.said.index(consume)


def test_a_message_for_no_queue_is_dead_lettered(cycle: Cycle, worker: StartWorker) -> None:
    worker(sweep_interval=NEVER)
    assert works()

    cycle.broker.publish(b"lost", "no.such.key", EXCHANGE)

    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)
    (letter,) = cycle.broker.take_all(DEAD_LETTER_QUEUE)
    assert letter.body == b"lost"


def test_dead_letters_are_nobodys_work(cycle: Cycle, worker: StartWorker) -> None:
    worker(sweep_interval=NEVER)
    assert works()
    cycle.broker.publish(body(str(new_instruction_id())), DEAD_LETTER_QUEUE, headers=headers())
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert works()

    assert cycle.broker.ready(DEAD_LETTER_QUEUE) == 1


def test_a_worker_takes_in_dead_letters_and_their_instructions_end(
    cycle: Cycle, worker: StartWorker
) -> None:
    process = worker(
        include=poison.MODULE, sweep_interval=0.2, sweep_grace=NEVER, log_level="DEBUG"
    )
    for message in NONSENSE.values():
        properties = {key: value for key, value in message.items() if key != "body"}
        cycle.broker.publish(message["body"], "control", EXCHANGE, **properties)

    rejected = USER_CREATE.delay(username="rejected")

    assert failure(rejected.get(timeout=60)).details == {"exception": "Reject"}
    eventually(lambda: cycle.count("dead_letters") == len(NONSENSE) + 1)
    found = cycle.sql("SELECT became, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1")
    assert dict(found) == {"kept": len(NONSENSE), "settled": 1}
    assert cycle.broker.ready(DEAD_LETTER_QUEUE) == 0
    assert MARK not in process.log_text()


def test_no_message_is_taken_before_dead_letters_have_their_queue(
    broker: Broker, worker: StartWorker
) -> None:
    process = worker(include=early_steps.MODULE)

    # The worker may call itself ready before each of them had its turn.
    eventually(lambda: process.log_text().count(early_steps.SAID) == 10)
    assert process.log_text().count(early_steps.FOUND) == 10


def test_a_message_whose_time_on_its_queue_ran_out_is_published_again(
    cycle: Cycle, worker: StartWorker
) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    cycle.broker.declare()
    cycle.broker.take_all("control")
    told = headers("llmchatlinker.user.user_list", root_id=str(instruction_id))
    encoded = body(str(instruction_id))
    cycle.broker.publish(encoded, "user", EXCHANGE, headers=told, expiration="1")
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    worker(sweep_interval=0.2, sweep_grace=NEVER)

    eventually(lambda: cycle.row(instruction_id).state == "final")
    assert cycle.envelope(instruction_id)["status"] == "success"
    found = cycle.sql("SELECT reason, became FROM dead_letters")
    assert [tuple(row) for row in found] == [("expired", "republished")]


@pytest.mark.parametrize("again", [False, True])
def test_what_a_stage_hands_on_that_came_again_is_marked_as_published_before(
    cycle: Cycle, worker: StartWorker, again: bool
) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    cycle.broker.take_all("control")
    publish(instruction_id, INSTRUCTION_SET["USER_LIST"], "submitted", again=again)

    worker("control")

    eventually(lambda: cycle.broker.ready("user") == 1)
    (message,) = cycle.broker.take_all("user")
    assert (AGAIN in message.headers) == again


def test_a_task_that_this_worker_does_not_know_ends_its_instruction(
    cycle: Cycle, worker: StartWorker
) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    cycle.broker.declare()
    cycle.broker.take_all("control")  # its own message, by which it would succeed
    message = headers("llmchatlinker.user.user_dance", root_id=str(instruction_id))
    cycle.broker.publish(body(str(instruction_id)), "user", EXCHANGE, headers=message)

    worker(sweep_grace=NEVER)

    eventually(lambda: cycle.row(instruction_id).state == "final")
    assert failure(cycle.envelope(instruction_id)).code == "internal"


# --- what it runs -------------------------------------------------------------------------------


def test_every_unit_runs_its_instructions(scene: Scene, worker: StartWorker) -> None:
    worker()
    client = LLMChatLinkerClient()

    envelopes = [
        client.create_user("bob"),
        client.create_chat("Together", usernames=["ada", "bob"]),
        client.list_llms(),
        client.generate_llm_response(scene.user_id, scene.chat_id, llm_id=1, user_input="Hello"),
        client.list_usage(),
    ]

    assert [envelope["status"] for envelope in envelopes] == ["success"] * 5
    assert scene.said() == ["Hello", "You said: Hello"]


def test_a_worker_serves_its_queues_and_no_other(cycle: Cycle, worker: StartWorker) -> None:
    worker("control", "database")
    result = USER_CREATE.delay(username="ada")

    eventually(lambda: result.state == "STARTED")
    eventually(lambda: cycle.broker.ready("user") == 1)
    assert not result.ready()

    worker("user")
    assert result.get(timeout=60)["status"] == "success"


def test_no_text_of_an_instruction_is_in_the_workers_log(
    scene: Scene, worker: StartWorker, secret_keys: str
) -> None:
    process = worker(log_level="DEBUG")
    client = LLMChatLinkerClient()
    client.create_user(f"{MARK} name", profile=MARK)
    client.create_user(f"{MARK} name", profile=MARK)  # a conflict
    client.update_llm_provider(scene.provider_id, api_key=MARK)
    scene.provider.script(scripts.answer(MARK), scripts.error(500, MARK))
    for _ in range(2):
        client.generate_llm_response(scene.user_id, scene.chat_id, llm_id=1, user_input=MARK)

    assert len(scene.provider.calls) == 2
    assert MARK not in process.log_text()


def test_many_turns_of_many_chats_run_at_once_and_each_chats_in_order(
    scene: Scene, worker: StartWorker
) -> None:
    scene.provider.otherwise = scripts.after(0.05, scripts.echo)
    worker(concurrency=16)
    client = LLMChatLinkerClient()
    chats = [scene.chat_id] + [
        client.create_chat("More", user_ids=[scene.user_id])["data"]["chat"]["chat_id"]
        for _ in range(3)
    ]
    results = [
        client.submit(
            "LLM_RESPONSE_GENERATE",
            **scene.turn | {"chat_id": chat_id, "user_input": f"turn {number}"},
        )
        for number in range(8)
        for chat_id in chats
    ]

    assert {result.get(timeout=120)["status"] for result in results} == {"success"}

    for chat_id in chats:
        messages = client.get_chat(chat_id)["data"]["chat"]["messages"]
        asked = [m["content"] for m in messages if m["role"] == "user"]
        assert asked == [f"turn {number}" for number in range(8)]


# --- what it is told by remote control ----------------------------------------------------------


def test_orders_by_remote_control_are_refused_and_questions_answered(
    cycle: Cycle, worker: StartWorker
) -> None:
    worker()
    refused = ["shutdown", "cancel_consumer", "pool_shrink", "election"]

    replies = [app.control.broadcast(name, reply=True, timeout=30, limit=1) for name in refused]

    assert ["error" in reply for (answer,) in replies for reply in answer.values()] == [True] * 4
    assert app.control.inspect(timeout=30, limit=1).active_queues()
    assert works()


def test_a_worker_is_stopped_by_remote_control_where_that_is_allowed(
    cycle: Cycle, worker: StartWorker
) -> None:
    process = worker(remote_control="all")

    app.control.shutdown()

    assert process.wait(60) == 0


# --- how it goes --------------------------------------------------------------------------------


def test_a_worker_that_is_told_to_stop_finishes_what_it_does(
    scene: Scene, worker: StartWorker
) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate)
    process = worker()
    result = LLMChatLinkerClient().submit("LLM_RESPONSE_GENERATE", **scene.turn, user_input="Hello")
    scene.provider.wait_for_calls(1)
    assert process.pid is not None

    os.kill(process.pid, signal.SIGTERM)
    eventually(lambda: "Stopping" in process.log_text())
    gate.open()

    assert process.wait(30) == 0
    eventually(lambda: scene.cycle.row(result.id).outcome is not None)
    assert scene.said() == ["Hello", "You said: Hello"]


def test_an_idle_worker_stops_in_seconds(cycle: Cycle, worker: StartWorker) -> None:
    process = worker()
    assert process.pid is not None
    started = time.monotonic()

    process.stop(30)

    assert process.poll() == 0
    assert time.monotonic() - started < 25


def test_a_worker_that_is_killed_loses_no_instruction(
    cycle: Cycle, worker: StartWorker, broker: Broker
) -> None:
    first = worker()
    results = [USER_CREATE.delay(username=f"user {number}") for number in range(40)]
    eventually(lambda: cycle.count("users") > 3)
    assert first.pid is not None

    os.kill(first.pid, signal.SIGKILL)
    first.wait(10)
    worker(sweep_interval=0.5, sweep_grace=1.0)

    assert {result.get(timeout=90)["status"] for result in results} == {"success"}
    assert cycle.count("users") == 40
