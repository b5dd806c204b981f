"""One generation per chat at a time, in the order of submission, whatever order messages come in."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene, watchers_asleep
from tests.fixtures.threads import at_once, eventually
from tests.servers import scripts


def turn(cycle: Cycle, instruction_id: UUID) -> tuple[str | None, str, str | None]:
    """Turn, state and reason to wait."""
    row = cycle.row(instruction_id)
    return row.turn, row.state, row.wait_reason


def questions(scene: Scene) -> list[str]:
    return [m["content"] for m in scene.messages() if m["role"] == "user"]


def test_a_turn_takes_its_place_when_it_is_submitted(scene: Scene) -> None:
    instruction_id = scene.submit("one")

    row = scene.cycle.row(instruction_id)

    assert (row.turn, row.chat_id) == ("queued", scene.chat_id)


def test_a_regeneration_takes_its_place_by_its_message(scene: Scene) -> None:
    answer = scene.ask("one")

    instruction_id = scene.cycle.submit("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])

    row = scene.cycle.row(instruction_id)
    assert (row.turn, row.chat_id) == ("queued", scene.chat_id)


def test_only_generations_have_a_turn(scene: Scene) -> None:
    assert scene.cycle.row(scene.cycle.submit("CHAT_LOAD", chat_id=1)).turn is None


def test_a_turn_that_is_not_first_is_parked_and_its_message_is_done_with(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")

    assert not scene.cycle.execute(second)

    assert turn(scene.cycle, second) == ("queued", "waiting", "turn")
    assert turn(scene.cycle, first) == ("queued", "decoded", None)
    assert scene.provider.calls == []


def test_a_parked_turn_goes_on_when_the_one_before_it_is_done(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)

    assert scene.cycle.execute(first)

    assert turn(scene.cycle, second) == ("queued", "decoded", None)
    assert scene.cycle.deliver() == [second]
    assert questions(scene) == ["one", "two"]


def test_what_is_sent_on_is_the_rest_of_the_chain_under_the_same_id(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)
    scene.cycle.execute(first)

    (letter,) = scene.cycle.broker.take_all("llm.generate")

    assert letter.task == "llmchatlinker.llm.llm_response_generate"
    assert letter.headers["root_id"] == str(second)
    assert str(second) in letter.body.decode()


@pytest.mark.parametrize("seed", range(3))
def test_many_turns_run_one_at_a_time_in_order_whatever_order_they_are_delivered_in(
    scene: Scene, seed: int
) -> None:
    words = [f"word {number}" for number in range(8)]
    waiting = [scene.decoded(word) for word in words]
    random.Random(seed).shuffle(waiting)

    for instruction_id in waiting:
        scene.cycle.execute(instruction_id)
    while scene.cycle.deliver("llm.generate"):
        pass

    assert questions(scene) == words
    assert [call.question for call in scene.provider.calls] == words
    sent = [len(call.body["messages"]) for call in scene.provider.calls]
    assert sent == [1, 3, 5, 7, 9, 11, 13, 15]


def test_many_turns_delivered_at_once_run_one_at_a_time_in_order(scene: Scene) -> None:
    at_work: list[int] = []
    most = 0

    def count(exchange: scripts.Exchange) -> None:
        nonlocal most
        at_work.append(1)
        most = max(most, len(at_work))
        exchange.pause(0.02)
        at_work.pop()
        scripts.echo(exchange)

    scene.provider.otherwise = count
    words = [f"word {number}" for number in range(6)]
    waiting = [scene.decoded(word) for word in words]

    at_once([lambda i=instruction_id: scene.cycle.execute(i) for instruction_id in waiting])
    while scene.cycle.deliver("llm.generate"):
        pass

    assert questions(scene) == words
    assert most == 1


def test_two_chats_do_not_wait_for_each_other(scene: Scene) -> None:
    other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]
    scene.decoded("one")
    elsewhere = scene.decoded("two", chat_id=other["chat_id"])

    assert scene.cycle.execute(elsewhere)

    assert [call.question for call in scene.provider.calls] == ["two"]


@pytest.mark.parametrize("how", ["provider fails", "not a member", "unknown field"])
def test_a_turn_that_fails_lets_the_next_one_go_on(scene: Scene, how: str) -> None:
    if how == "provider fails":
        scene.provider.script(scripts.error(500))
        first = scene.submit("one")
    elif how == "not a member":
        bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
        first = scene.submit("one", user_id=bob)
    else:
        first = scene.submit("one", colour="red")
    second = scene.decoded("two")
    scene.cycle.execute(second)
    assert turn(scene.cycle, second) == ("queued", "waiting", "turn")

    scene.cycle.finish(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    assert questions(scene)[-1] == "two"
    assert scene.cycle.row(first).turn == "done"


def test_a_parked_turn_that_is_late_ends_and_lets_the_next_one_go_on(scene: Scene) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate)
    first, second, third = (scene.decoded(word) for word in ("one", "two", "three"))
    cycle = scene.cycle

    def meanwhile() -> bool:
        scene.provider.wait_for_calls(1)
        try:
            for instruction_id in (second, third):
                cycle.execute(instruction_id)
            cycle.sql(
                "UPDATE instructions SET deadline_at = now() - interval '1 s' WHERE id = :id",
                id=second,
            )
            return failure(cycle.envelope(second)).code == "deadline_exceeded"
        finally:
            gate.open()

    _, closed = at_once([lambda: cycle.execute(first), meanwhile])

    assert closed
    assert cycle.deliver("llm.generate") == [third]
    assert questions(scene) == ["one", "three"]


def test_an_active_turn_that_is_late_gives_its_place_to_the_next_one(
    scene: Scene,
) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate)
    first, second = scene.decoded("one"), scene.decoded("two")
    cycle = scene.cycle

    def meanwhile() -> list[UUID]:
        scene.provider.wait_for_calls(1)
        try:
            cycle.execute(second)
            cycle.sql(
                "UPDATE instructions SET deadline_at = now() - interval '1 s' WHERE id = :id",
                id=first,
            )
            with watchers_asleep():
                assert failure(cycle.envelope(first)).code == "deadline_exceeded"
                assert cycle.row(first).turn == "active", "its call is still going on"
            delivered: list[UUID] = []
            eventually(lambda: delivered.extend(cycle.deliver("llm.generate")) or delivered)
            return delivered
        finally:
            gate.open()

    _, delivered = at_once([lambda: [cycle.execute(first)], meanwhile])

    assert delivered == [second]
    assert [(m["content"], m["status"]) for m in scene.messages()] == [
        ("one", "complete"),
        ("", "failed"),
        ("two", "complete"),
        ("You said: two", "complete"),
    ]


def test_a_parked_turn_that_is_delivered_again_stays_parked(scene: Scene) -> None:
    scene.decoded("one")
    second = scene.decoded("two")
    scene.cycle.execute(second)

    assert not scene.cycle.execute(second)
    assert not scene.cycle.decode(second)

    assert turn(scene.cycle, second) == ("queued", "waiting", "turn")


def test_a_turn_of_a_chat_that_is_deleted_meanwhile_ends(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")
    scene.cycle.execute(second)
    scene.cycle.do("CHAT_DELETE", chat_id=scene.chat_id)

    assert scene.cycle.execute(first)
    scene.cycle.store(first)
    eventually(lambda: scene.cycle.deliver("llm.generate") == [second], 5)

    for instruction_id in (first, second):
        assert failure(scene.cycle.envelope(instruction_id)).code == "not_found"
    assert scene.provider.calls == []


def test_the_database_itself_allows_no_second_active_turn(scene: Scene) -> None:
    from sqlalchemy.exc import IntegrityError

    for word in ("one", "two"):
        scene.decoded(word)

    with pytest.raises(IntegrityError, match="uq_instructions_active_turn"):
        scene.cycle.sql("UPDATE instructions SET turn = 'active' WHERE turn = 'queued'")
