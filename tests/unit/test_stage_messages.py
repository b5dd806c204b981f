"""The messages of a cycle: what Celery composed, with an instruction's ids in it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from amqp.exceptions import RecoverableConnectionError
from kombu import Connection
from kombu.exceptions import OperationalError

from llmchatlinker import stage_messages
from llmchatlinker.celery_app import app
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.stage_bytes import Ids, record, shape_of
from llmchatlinker.stage_messages import kind
from llmchatlinker.topology import DECODE_TASK, EXCHANGE, STORE_TASK

ID = str(uuid.uuid4())
SPEC = INSTRUCTION_SET["USER_LIST"]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Channel:
    """What queues are declared on."""


class Producer:
    """Takes what is published."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.connection = Connection("memory://")
        self.published: list[dict[str, Any]] = []

    def publish(self, body: str, **options: Any) -> None:
        self.published.append({"body": body, **options})


def sent(
    instruction: str,
    *more: str,
    state: str = "submitted",
    producer: Producer | None = None,
) -> dict[str, Any]:
    """What is published for the stage that is due in ``state``, its body opened; ``more``: ids."""
    producer = producer or Producer()
    stage = kind(SPEC, state, 4.0)
    stage_messages.send(stage, stage_messages.ids_of(stage, instruction, *more), producer)
    message = producer.published[-1]
    assert (message["content_type"], message["content_encoding"]) == ("application/json", "utf-8")
    return {**message, "body": json.loads(message["body"])}


def test_the_chain_is_decode_execute_and_store() -> None:
    message = sent(ID)

    args, kwargs, embedded = message["body"]
    assert message["headers"]["task"] == DECODE_TASK
    assert [step["task"] for step in reversed(embedded["chain"])] == [SPEC.task_name, STORE_TASK]
    assert (args, kwargs) == ([ID], {})


@pytest.mark.parametrize("state", ["submitted", "decoded", "executed"])
def test_the_last_tasks_id_is_the_instructions_and_it_is_every_tasks_root(state: str) -> None:
    message = sent(ID, state=state)

    chain = message["body"][2]["chain"]
    last = chain[0]["options"]["task_id"] if chain else message["headers"]["id"]
    roots = {message["headers"]["root_id"], *(step["options"]["root_id"] for step in chain)}
    assert (last, roots) == (ID, {ID})


def test_two_instructions_share_no_task_id() -> None:
    ids: list[str] = []
    for instruction_id in (ID, str(uuid.uuid4())):
        message = sent(instruction_id)
        ids.append(message["headers"]["id"])
        ids += [step["options"]["task_id"] for step in message["body"][2]["chain"]]

    assert len(set(ids)) == 6


def test_the_reply_queue_and_the_trace_are_in_every_step() -> None:
    message = sent(ID, 'reply."q"', TRACE)

    steps = message["body"][2]["chain"]
    assert message["reply_to"] == 'reply."q"'
    assert message["headers"]["traceparent"] == TRACE
    assert {step["options"]["reply_to"] for step in steps} == {'reply."q"'}
    assert [step["options"]["headers"] for step in steps] == [{"traceparent": TRACE}] * 2


def test_nothing_is_there_of_what_an_instruction_does_not_have() -> None:
    message = sent(ID)

    text = json.dumps(message["body"]) + json.dumps(message["headers"])
    assert "@" not in text.replace(message["headers"]["origin"], "")
    assert "reply_to" not in text
    assert "traceparent" not in text
    assert not [name for name, value in message["headers"].items() if value in (None, {}, [], 0)]


def test_what_is_left_out_is_what_celery_takes_for_its_default() -> None:
    from celery.app.task import Context

    composed = app.amqp.as_task_v2(ID, STORE_TASK, args=(ID,), root_id=ID, ignore_result=None)
    left_out = composed.headers.keys() - sent(ID, state="executed")["headers"].keys()

    defaults = Context({})
    for name in left_out - {"ignore_result"}:
        value = composed.headers[name]
        assert (getattr(defaults, name, None) or None) == (
            None if value in (0, {}, [None, None]) else value
        )


def test_a_queue_is_declared_once_on_each_channel() -> None:
    producer = Producer()
    first, second = (sent(ID, producer=producer) for _ in range(2))

    assert [queue.name for queue in first["declare"]] == ["control"]
    assert second["declare"] == []
    assert [queue.name for queue in sent(ID)["declare"]] == ["control"]


def test_a_broker_that_is_gone_is_kombus_error() -> None:
    class Gone(Producer):
        def publish(self, body: str, **options: Any) -> None:
            raise RecoverableConnectionError("gone")

    gone = Gone()
    gone.connection = Connection("amqp://nobody@127.0.0.1:1//")
    with pytest.raises(OperationalError, match="gone"):
        sent(ID, producer=gone)


def handed_on(task: str, **changes: Any) -> bool:
    """Whether ``hand_on`` takes it; with nothing behind the broker's address."""
    options: dict[str, Any] = {"root_id": ID, "task_id": ID, "chain": [], "priority": None}
    return stage_messages.hand_on(task, ID, options | changes)


@pytest.mark.parametrize(
    ("task", "changes"),
    [
        ("mine.task", {}),
        (DECODE_TASK, {}),
        (SPEC.task_name, {"chain": []}),
        (SPEC.task_name, {"chain": [{"task": STORE_TASK}, {"task": "mine.task"}]}),
        (STORE_TASK, {"chain": [{"task": "mine.task"}]}),
        (STORE_TASK, {"root_id": str(uuid.uuid4())}),
        (STORE_TASK, {"headers": {"mine": 1}}),
        (STORE_TASK, {"priority": 5}),
        (STORE_TASK, {"countdown": 5}),
    ],
)
def test_what_is_no_step_of_a_cycle_is_left_to_celery(task: str, changes: dict[str, Any]) -> None:
    assert not handed_on(task, **changes)


REPLY, PARENT = f"llmchatlinker.reply.{uuid.uuid4()}", str(uuid.uuid4())


@pytest.mark.parametrize("type_name", ["USER_LIST", "LLM_RESPONSE_GENERATE"])
@pytest.mark.parametrize("state", ["submitted", "decoded", "executed"])
@pytest.mark.parametrize("replies", [False, True])
@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("handed_on", [False, True])
def test_a_pattern_with_ids_in_it_is_what_celery_has_published(
    type_name: str, state: str, replies: bool, traced: bool, handed_on: bool
) -> None:
    stage = kind(INSTRUCTION_SET[type_name], state, 4.0)
    optional = (REPLY if replies else None, TRACE if traced else None, None)
    ids = stage_messages.ids_of(stage, ID, *optional, PARENT if handed_on else None)
    shape = shape_of(ids)
    assert shape is not None

    composed = record(
        lambda producer: stage_messages._send_through_celery(
            stage, ids, producer, again=False, declare=[], retry=False
        )
    )

    pattern = stage_messages._pattern(stage, shape)
    assert pattern.of(ids) == (composed.properties, composed.body)
    assert (pattern.exchange, pattern.routing_key) == (EXCHANGE, stage.queue)


@pytest.mark.parametrize(
    "ids",
    [
        Ids(ID.upper(), ID, ID, 0.0),
        Ids(ID, "mine", ID, 0.0),
        Ids(ID, ID, ID, 0.0, parent='a"b'),
        Ids(ID, ID, ID, 0.0, reply_to="short"),
        Ids(ID, ID, ID, 0.0, reply_to='reply."quoted".and.long.enough'),
        Ids(ID, ID, ID, 0.0, reply_to="reply.of.jürgen.and.long.enough"),
        Ids(ID, ID, ID, 0.0, traceparent="no trace but a text with blanks"),
    ],
)
def test_no_pattern_stands_for_ids_of_another_kind(ids: Ids) -> None:
    assert shape_of(ids) is None
