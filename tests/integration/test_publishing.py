"""Messages that are published as bytes: the same as Celery's, confirmed, and never silently lost."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from amqp.exceptions import MessageNacked
from celery import signals
from kombu import Connection
from kombu.exceptions import OperationalError

from llmchatlinker import stage_messages
from llmchatlinker.broker_publishing import Publishing
from llmchatlinker.celery_app import app
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.outcomes import Ending
from llmchatlinker.results import hints
from llmchatlinker.topology import EXCHANGE
from tests.fixtures.brokers import Broker, Letter
from tests.fixtures.threads import eventually
from tests.servers.proxy import Proxy

KIND = stage_messages.kind(USER_LIST, "decoded", 4.0)
QUEUE = "user"


def ids(instruction: object = None) -> Any:
    reply_to = f"llmchatlinker.reply.{uuid.uuid4()}"
    return stage_messages.ids_of(KIND, str(instruction or new_instruction_id()), reply_to)


def publish(found: Any, **options: Any) -> bool:
    """Publish a stage's message; whether Celery did it."""
    by_celery = []
    original = stage_messages._send_through_celery

    def through_celery(*args: Any, **more: Any) -> None:
        by_celery.append(True)
        original(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_messages, "_send_through_celery", through_celery)
        stage_messages.send(KIND, found, **options)
    return bool(by_celery)


def seen(letter: Letter | None) -> Any:
    assert letter is not None
    return letter.headers, letter.properties, letter.body, letter.content_type


@pytest.fixture
def published(broker: Broker) -> Broker:
    """A broker whose queue is known on the connection that will be used."""
    assert publish(ids()), "the first one on a connection declares its queue"
    publish(ids())  # which makes the pattern
    broker.take_all(QUEUE)
    return broker


def test_what_is_written_as_bytes_arrives_as_what_celery_publishes(published: Broker) -> None:
    found = ids()

    assert not publish(found)
    assert publish(replace(found), again=True)
    as_bytes, by_celery = seen(published.take(QUEUE)), seen(published.take(QUEUE))

    assert by_celery[0].pop(stage_messages.AGAIN) is True
    assert as_bytes == by_celery


def test_it_goes_through_the_exchange_as_celery_s_do(published: Broker) -> None:
    with Connection(published.url) as connection:
        channel = connection.default_channel
        channel.queue_declare("observer", auto_delete=False, exclusive=True)
        channel.queue_bind("observer", EXCHANGE, "#")
        assert not publish(ids())
        assert publish(ids(), again=True)

        found = [channel.basic_get("observer", no_ack=True) for _ in range(2)]

    keys = [message.delivery_info["routing_key"] for message in found]
    assert keys == [QUEUE, QUEUE]


def test_whoever_has_celery_tell_of_messages_is_told_of_each(published: Broker) -> None:
    told = []

    def before(sender: str, **_: Any) -> None:
        told.append(sender)

    signals.before_task_publish.connect(before)
    try:
        assert publish(ids())
    finally:
        signals.before_task_publish.disconnect(before)

    assert told == [USER_LIST.task_name]
    assert not publish(ids())


def test_a_connection_that_broke_is_replaced_and_the_message_published(
    published: Broker, mq: Proxy
) -> None:
    publish(ids())
    publish(ids())
    mq.cut()
    mq.mend()
    published.take_all(QUEUE)
    found = ids()

    assert publish(found)

    (letter,) = published.take_all(QUEUE)
    assert letter.headers["root_id"] == found.instruction


def test_who_tries_again_himself_gets_the_error_at_once(published: Broker, mq: Proxy) -> None:
    publish(ids())
    publish(ids())
    mq.cut()

    with pytest.raises(OperationalError):
        publish(ids(), retry=False)


@pytest.fixture
def channel(broker: Broker) -> Iterator[Any]:
    with app.connection_for_write(transport_options={"confirm_publish": True}) as connection:
        found = connection.default_channel
        assert isinstance(found, Publishing)
        found.confirm_select()
        found._confirm_selected = True
        yield found


PROPERTIES = b"\x80\x00\x04text"  # a content type, and nothing else


def test_a_broker_that_refuses_is_heard(channel: Any) -> None:
    name = f"full-{uuid.uuid4()}"
    channel.queue_declare(
        name,
        auto_delete=False,
        exclusive=True,
        arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
    )
    channel.publish_bytes("", name, PROPERTIES, b"one", 4.0)

    with pytest.raises(MessageNacked):
        channel.publish_bytes("", name, PROPERTIES, b"two", 4.0)
    assert channel.basic_get(name, no_ack=True).body == b"one"


def test_a_broker_that_does_not_confirm_is_not_waited_for(published: Broker, mq: Proxy) -> None:
    publish(ids())
    with app.connection_for_write(transport_options={"confirm_publish": True}) as connection:
        found: Any = connection.default_channel
        found.confirm_select()
        mq.freeze()
        try:
            with pytest.raises(TimeoutError):
                found.publish_bytes(EXCHANGE, QUEUE, PROPERTIES, b"{}", 0.2)
            connection.collect()
        finally:
            mq.thaw()


def test_a_body_of_any_size_that_fits_into_a_frame_arrives_whole(channel: Any) -> None:
    name = f"sizes-{uuid.uuid4()}"
    channel.queue_declare(name, auto_delete=False, exclusive=True)
    bodies = [b"", b"x", b"\xce" * 1000, b"y" * 100_000]
    for body in bodies:
        channel.publish_bytes("", name, PROPERTIES, body, 4.0)

    found = [channel.basic_get(name, no_ack=True) for _ in bodies]

    # py-amqp's message without a body has an empty text.
    assert [message.body or b"" for message in found] == bodies
    assert {message.properties["content_type"] for message in found} == {"text"}


# --- hints ----------------------------------------------------------------------------------------


class Post:
    """A publisher of hints, and a queue that they come to."""

    def __init__(self, broker: Broker) -> None:
        self.queue = f"hints-{uuid.uuid4()}"
        self.publisher = hints.HintPublisher()
        self._connection = Connection(broker.url)
        self._channel = self._connection.default_channel
        self._channel.queue_declare(self.queue, auto_delete=False, exclusive=True)

    def hint(self) -> str:
        instruction_id = new_instruction_id()
        self.publisher.hint(Ending(instruction_id, (self.queue,), "USER_LIST", "success"))
        return str(instruction_id)

    def come(self, count: int) -> list[Any]:
        """The next so many messages."""
        found: list[Any] = []

        def look() -> bool:
            message = self._channel.basic_get(self.queue, no_ack=True)
            if message is not None:
                found.append(json.loads(message.body))
            return len(found) == count

        eventually(look)
        return found

    def close(self) -> None:
        self._connection.release()


@pytest.fixture
def post(broker: Broker) -> Iterator[Post]:
    current = Post(broker)
    yield current
    current.close()


def test_a_hint_is_published_by_who_has_it_once_there_is_a_connection(post: Post) -> None:
    first = post.hint()
    assert [item["id"] for item in post.come(1)] == [first]
    eventually(lambda: post.publisher._some._cond._waiters)  # its thread is idle, and holds nothing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(post.publisher, "_wake", lambda: pytest.fail("its thread is not needed"))
        ids_of_hints = [post.hint() for _ in range(3)]

    assert [item["id"] for item in post.come(3)] == ids_of_hints


def test_after_a_change_of_settings_hints_go_by_a_connection_of_their_own(post: Post) -> None:
    post.hint()
    post.come(1)
    before = post.publisher._channel

    post.publisher.reconnect()

    assert [post.hint()] == [item["id"] for item in post.come(1)]
    assert post.publisher._channel not in (None, before)


def test_pushes_stay_in_order_whoever_publishes_them(post: Post) -> None:
    count = 300
    for number in range(count):
        # Now and then one that is too large to be written at once.
        padding = "x" * (2 * hints.AT_ONCE) if number % 50 == 0 else ""
        post.publisher.send(post.queue, json.dumps([number, padding]).encode())

    assert [item[0] for item in post.come(count)] == list(range(count))


def test_a_hint_waits_while_another_one_is_being_published(post: Post) -> None:
    post.hint()
    post.come(1)
    with post.publisher._wire:
        late = post.hint()
        assert len(post.publisher._hints) == 1

    assert [item["id"] for item in post.come(1)] == [late]


ENVELOPE = '{"status": "success", "message": "done", "data": {}, "instruction_id": "1"}'
FINAL_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_hint_with_an_envelope_does_not_outlive_a_client_that_is_gone(post: Post) -> None:
    post.hint()
    post.come(1)
    ending = Ending(new_instruction_id(), (post.queue,), "X", "success", FINAL_AT, ENVELOPE)

    post.publisher.hint(ending)

    found: list[Any] = []
    eventually(lambda: found.append(post._channel.basic_get(post.queue, no_ack=True)) or found[-1])
    message = found[-1]
    assert message.properties["delivery_mode"] == 1
    assert int(message.properties["expiration"]) <= 30_000
    assert json.loads(message.body) == {
        "id": str(ending.instruction_id),
        "state": "SUCCESS",
        "date_done": FINAL_AT.isoformat(),
        "result": json.loads(ENVELOPE),
    }


def test_a_hint_that_must_wait_waits_without_its_envelope(post: Post) -> None:
    post.hint()
    post.come(1)
    ending = Ending(new_instruction_id(), (post.queue,), "X", "success", FINAL_AT, ENVELOPE)
    with post.publisher._wire:
        post.publisher.hint(ending)

    assert post.come(1) == [{"id": str(ending.instruction_id), "state": "SUCCESS"}]


def test_hints_come_again_after_the_connection_broke(post: Post, mq: Proxy) -> None:
    post.hint()
    post.come(1)
    mq.cut()
    mq.mend()

    def comes() -> bool:
        wanted = post.hint()
        found = post._channel.basic_get(post.queue, no_ack=True)
        return found is not None and json.loads(found.body)["id"] <= wanted

    eventually(comes)
