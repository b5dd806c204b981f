"""Old events: what is left of a stream that ended long ago, and of one whose chat is gone."""

from __future__ import annotations

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import NotFound
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.streaming.compaction import compact
from llmchatlinker.sweeper import sweep
from tests.fixtures.configuration import Configure
from tests.fixtures.scenes import Scene
from tests.fixtures.streams import Produce
from tests.fixtures.threads import eventually


def age(scene: Scene) -> None:
    """Everything so far is two days old."""
    scene.cycle.sql("UPDATE events SET created_at = created_at - interval '2 days'")
    scene.cycle.sql("UPDATE instructions SET final_at = final_at - interval '2 days'")


@pytest.fixture
def answered(scene: Scene) -> str:
    """The id of a generation that ended two days ago."""
    instruction_id = scene.decoded("one two three")
    scene.cycle.finish(instruction_id, "execute")
    age(scene)
    return str(instruction_id)


def test_an_old_stream_is_a_snapshot_and_its_end(scene: Scene, answered: str) -> None:
    client = LLMChatLinkerClient()
    before = list(client.follow(answered))

    assert sweep()["compacted"] == 1
    snapshot, last = list(client.follow(answered))

    assert last == before[-1]
    assert snapshot.type == "response.snapshot"
    assert snapshot.sequence_number == last.sequence_number - 1
    assert snapshot.text == "".join(event.text for event in before)
    assert snapshot.data["message_id"] == last.data["message_id"]
    assert scene.cycle.count("events") == 1
    assert "one two three" not in str(scene.cycle.sql("SELECT events FROM events"))


def test_a_compacted_stream_can_be_followed_from_any_number(scene: Scene, answered: str) -> None:
    client = LLMChatLinkerClient()
    count = len(list(client.follow(answered)))
    sweep()

    def types(after: int) -> list[str]:
        return [event.type for event in client.follow(answered, starting_after=after)]

    for after in range(count - 1):
        assert types(after) == ["response.snapshot", "response.completed"]
    assert types(count - 1) == ["response.completed"]
    assert types(count) == []
    assert [e.type for e in client.follow(answered, snapshot=True)] == types(0)


def test_what_is_compacted_is_not_compacted_again(scene: Scene, answered: str) -> None:
    assert [scene.cycle.database.run(compact) for _ in range(2)] == [1, 0]


def test_a_new_stream_and_one_under_way_are_left_alone(scene: Scene, produce: Produce) -> None:
    scene.ask("one")
    response = produce()
    response.say("Hello")
    eventually(lambda: response.texts() == "Hello")
    scene.cycle.sql("UPDATE events SET created_at = created_at - interval '2 days'")

    assert scene.cycle.database.run(compact) == 0


def test_a_stream_whose_end_nobody_stored_gets_it_from_its_outcome(
    scene: Scene, produce: Produce
) -> None:
    response = produce()
    response.say("Hello")
    eventually(lambda: response.texts() == "Hello")
    response.stream.drain()
    scene.cycle.sql(
        "UPDATE instructions SET state = 'final', final_at = now(), outcome = :outcome"
        " WHERE id = :id",
        outcome='{"status": "error", "message": "", "data": {}, "error": {"code": "in_doubt"}}',
        id=response.instruction_id,
    )
    client = LLMChatLinkerClient()
    before = list(client.follow(response.id))[-1]
    age(scene)

    assert scene.cycle.database.run(compact) == 1
    assert list(client.follow(response.id))[-1] == before


def test_events_without_an_instruction_go(scene: Scene, answered: str) -> None:
    scene.cycle.sql("DELETE FROM instructions WHERE id = :id", id=answered)

    scene.cycle.database.run(compact)

    assert scene.cycle.count("events") == 0


def test_a_forgotten_result_takes_its_events_along(scene: Scene, answered: str) -> None:
    InstructionResult(answered).forget()

    assert scene.cycle.count("events") == 0
    with pytest.raises(NotFound):
        LLMChatLinkerClient().follow(answered)


def test_a_deleted_chat_takes_its_events_along(scene: Scene, answered: str) -> None:
    scene.cycle.do("CHAT_DELETE", chat_id=scene.chat_id)

    assert scene.cycle.count("events") == 0


@pytest.mark.parametrize("way", ["USER_ERASE", "USER_DELETE"])
def test_a_user_who_goes_takes_the_events_along(scene: Scene, answered: str, way: str) -> None:
    scene.cycle.do(way, user_id=scene.user_id)

    assert scene.cycle.count("events") == 0


def test_retention_is_a_setting(scene: Scene, configure: Configure) -> None:
    scene.ask("one")
    configure(event_retention=0.001)

    eventually(lambda: scene.cycle.database.run(compact) == 1)
