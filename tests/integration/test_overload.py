"""A full system refuses what is new, and never what it has accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llmchatlinker import load
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import Conflict, Overloaded
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.message_queue import publish_message
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once


@pytest.fixture(autouse=True)
def counted_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each submission looks."""
    monkeypatch.setattr(load, "INTERVAL", 0.0)
    return


def test_what_is_too_many_is_refused_and_leaves_nothing(cycle: Cycle, configure: Configure) -> None:
    configure(max_open=3)
    for _ in range(3):
        cycle.submit("USER_LIST")

    with pytest.raises(Overloaded) as caught:
        USER_LIST.delay()

    assert caught.value.details == {"retry_after": 5.0, "limit": 3}
    assert cycle.count("instructions") == 3
    assert cycle.broker.ready("control") == 3


def test_clients_get_an_envelope(cycle: Cycle, configure: Configure) -> None:
    configure(max_open=1)
    cycle.submit("USER_LIST")

    for envelope in (
        LLMChatLinkerClient().list_users(),
        json.loads(publish_message(json.dumps({"type": "USER_LIST"}))),
    ):
        assert (failure(envelope).code, envelope["instruction_id"]) == ("overloaded", None)


def test_what_was_accepted_goes_on_and_makes_room(cycle: Cycle, configure: Configure) -> None:
    configure(max_open=1)
    instruction_id = cycle.submit("USER_LIST")

    assert cycle.finish(instruction_id)

    assert cycle.envelope(instruction_id)["status"] == "success"
    assert cycle.do("USER_LIST") == {"users": [], "next": None}


def test_a_cancel_is_never_refused(scene: Scene, configure: Configure) -> None:
    instruction_id = scene.submit("Hello")
    configure(max_open=1)

    scene.cycle.submit("LLM_RESPONSE_CANCEL", instruction_id=str(instruction_id))

    assert failure(scene.cycle.envelope(instruction_id)).code == "cancelled"


def test_one_user_with_many_turns_leaves_room_for_others(
    scene: Scene, configure: Configure
) -> None:
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, add_users=["bob"])
    configure(max_open_per_user=2)
    for number in range(2):
        scene.submit(f"turn {number}")

    with pytest.raises(Overloaded, match="The user has 2 turns"):
        scene.submit("one more")

    assert scene.submit("Hello", user_id=bob)
    assert scene.cycle.do("USER_GET", user_id=scene.user_id), "only turns are counted"


def test_a_repetition_of_what_was_accepted_is_never_refused(
    cycle: Cycle, configure: Configure
) -> None:
    instruction_id = cycle.submit("USER_CREATE", idempotency_key="k", username="ada")
    configure(max_open=1)

    assert cycle.submit("USER_CREATE", idempotency_key="k", username="ada") == instruction_id
    with pytest.raises(Conflict):
        cycle.submit("USER_CREATE", idempotency_key="k", username="bob")
    with pytest.raises(Overloaded):
        cycle.submit("USER_CREATE", idempotency_key="other", username="ada")
    assert cycle.broker.ready("control") == 1


def test_a_count_is_shared_and_taken_once(cycle: Cycle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "INTERVAL", 60.0)
    cycle.submit("USER_LIST")
    first = cycle.sql("SELECT measured_at FROM system_load")

    found = at_once([lambda: load.Load().measure().open] * 8)

    assert set(found) == {0}, "counted before the row was there"
    assert cycle.sql("SELECT measured_at FROM system_load") == first


def test_a_result_that_is_too_large_is_an_error_and_its_work_is_undone(
    cycle: Cycle, configure: Configure
) -> None:
    configure(result_bytes=1000)

    failed = cycle.fail("USER_CREATE", username="ada", profile="x" * 2000)

    assert (failed.code, failed.details["limit"]) == ("invalid_data", 1000)
    assert failed.details["bytes"] > 2000
    assert cycle.count("users") == 0
