"""The SDK and ``publish_message`` against a real worker: envelopes, pages, and what is raised."""

from __future__ import annotations

import json

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import InvalidData, NotFound, ResultTimeout
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.message_queue import publish_message
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.workers import StartWorker

client = LLMChatLinkerClient()


@pytest.fixture
def served(cycle: Cycle, worker: StartWorker) -> Cycle:
    """Seven users, and a worker that serves everything."""
    cycle.sql("INSERT INTO users (username) SELECT 'user ' || n FROM generate_series(1, 7) n")
    worker()
    return cycle


def test_what_comes_back_is_an_envelope_and_pages_are_put_together(served: Cycle) -> None:
    created = client.create_user("ada", profile="counts")
    assert created["status"] == "success"
    assert created["instruction_id"] is not None
    assert client.result(created["instruction_id"]).get(timeout=60) == created

    assert failure(client.get_user(username="nobody")).code == "not_found"
    assert failure(client.run("USER_DANCE")).code == "unknown_instruction"
    assert failure(client.create_user("a\x00b")).fields == ["username"]
    assert failure(client.create_user("bob", colour="red")).fields == ["colour"]

    pages = list(client.pages(USER_LIST, limit=3))
    assert [len(page["data"]["users"]) for page in pages] == [3, 3, 2]
    (refused,) = client.pages("CHAT_EXPORT", chat_id=77)
    assert failure(refused).code == "not_found"

    first = client.create_user("bob", idempotency_key="k1")
    assert client.create_user("bob", idempotency_key="k1") == first
    assert failure(client.create_user("eve", idempotency_key="k1")).code == "conflict"


def test_a_message_comes_back_as_text(served: Cycle) -> None:
    message = json.dumps({"type": "USER_CREATE", "data": {"username": "größe 世界"}})

    text = publish_message(message)

    assert "größe 世界" in text
    envelope = json.loads(text)
    assert list(envelope) == ["status", "message", "data", "instruction_id"]
    again = json.loads(publish_message(message.encode()))
    assert list(again) == ["status", "message", "data", "instruction_id", "error"]
    assert again["error"]["code"] == "conflict"


def test_without_a_worker_a_deadline_ends_the_waiting(cycle: Cycle) -> None:
    assert failure(client.list_users(deadline=0.3)).code == "deadline_exceeded"
    text = publish_message('{"type": "USER_LIST", "deadline": 0.3}')
    assert json.loads(text)["error"]["code"] == "deadline_exceeded"


def test_a_submission_that_makes_no_sense_is_raised(cycle: Cycle) -> None:
    with pytest.raises(InvalidData):
        client.submit("USER_LIST", deadline=-1)
    assert cycle.count("instructions") == 0


def test_waiting_for_nobodys_id_or_too_short_is_raised(cycle: Cycle) -> None:
    with pytest.raises(NotFound):
        client.result(str(new_instruction_id())).get(timeout=60)
    with pytest.raises(ResultTimeout):
        client.submit("USER_LIST").get(timeout=0.1)
