"""Turns that begin or end at the same moment: one transaction for all, and what is amiss goes alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import UUID

import pytest
from psycopg2 import errors

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.together import PUT_OFF
from llmchatlinker.units import straight_claim, straight_settle
from llmchatlinker.units.calling import Turn, call_provider
from llmchatlinker.units.limits import Limit
from llmchatlinker.units.straight_claim import Claim, Claimed
from llmchatlinker.units.straight_settle import Settlement, settlement
from tests.fixtures.configuration import Configure
from tests.fixtures.scenes import Scene
from tests.servers import scripts

SAYS = "It said so."


def turns(scene: Scene, count: int) -> list[UUID]:
    """Decoded first turns of that many chats."""
    chats = [scene.chat_id]
    while len(chats) < count:
        chat = scene.cycle.do("CHAT_CREATE", title="More", user_ids=[scene.user_id])["chat"]
        chats.append(chat["chat_id"])
    return [scene.decoded(f"Hello {chat_id}", chat_id=chat_id) for chat_id in chats]


def claim(scene: Scene, ids: list[UUID]) -> list[object]:
    """Claim them in one transaction."""
    claims = [Claim(instruction_id, f"worker {n}") for n, instruction_id in enumerate(ids)]
    found = scene.cycle.database.run_on_driver(lambda rows: straight_claim.claim(rows, claims))
    return list(found)


def claimed(scene: Scene, ids: list[UUID]) -> list[Turn]:
    """The same where all are taken."""
    works = []
    for found in claim(scene, ids):
        assert isinstance(found, tuple)
        taken: Claimed = found
        works.append(taken[0])
    return works


def answered(works: list[Turn]) -> list[Settlement]:
    """Their calls, made."""
    found = [settlement(work, call_provider(work), SAYS) for work in works]
    return [item for item in found if item is not None]


def settle(scene: Scene, settlements: list[Settlement]) -> list[bool]:
    """Settle them in one transaction; whether each was."""

    def work(rows: Rows) -> list[bool]:
        found = straight_settle.settle(rows, settlements)
        return [aftermath is not None for aftermath in found]

    return scene.cycle.database.run_on_driver(work)


@contextmanager
def locked(scene: Scene, statement: str, **values: object) -> Iterator[None]:
    """Somebody else holds the lock that the statement takes."""
    holds, done = threading.Event(), threading.Event()

    def hold(rows: Rows) -> None:
        rows(values, statement)
        holds.set()
        assert done.wait(10)

    thread = threading.Thread(target=lambda: scene.cycle.database.run_on_driver(hold))
    thread.start()
    try:
        assert holds.wait(10)
        yield
    finally:
        done.set()
        thread.join()


def test_turns_of_several_chats_begin_in_one_transaction(scene: Scene) -> None:
    ids = turns(scene, 3)

    works = claimed(scene, ids)

    assert [work.instruction_id for work in works] == ids
    assert len({work.attempt_id for work in works}) == 3
    assert [scene.cycle.row(i).turn for i in ids] == ["active"] * 3
    assert scene.cycle.sql("SELECT count(DISTINCT CAST(xmin AS text)) FROM attempts") == [(1,)]
    asked = scene.cycle.sql(
        "SELECT q.content, a.id > q.id, a.status, c.active_message_id = a.id, t.worker"
        "  FROM messages a JOIN messages q ON q.id = a.parent_id"
        "  JOIN chats c ON c.id = a.chat_id JOIN attempts t ON t.instruction_id = a.instruction_id"
        " ORDER BY q.chat_id"
    )
    assert [row[0] for row in asked] == [work.request.messages[-1]["content"] for work in works]
    assert [tuple(row[1:]) for row in asked] == [
        (True, "generating", True, f"worker {n}") for n in range(3)
    ]


def test_each_turn_gets_its_own_chats_history(scene: Scene) -> None:
    scene.ask("What was said")
    first, second = turns(scene, 2)

    with_history, without = claimed(scene, [first, second])

    assert [message["role"] for message in with_history.request.messages] == [
        "user",
        "assistant",
        "user",
    ]
    assert with_history.request.messages[0]["content"] == "What was said"
    assert len(without.request.messages) == 1


def test_two_turns_of_a_chat_do_not_begin_together(scene: Scene) -> None:
    first, second = scene.decoded("one"), scene.decoded("two")

    assert [found is None for found in claim(scene, [second, first])] == [True, False]


def test_what_is_delivered_twice_at_the_same_moment_begins_once(scene: Scene) -> None:
    (instruction_id,) = turns(scene, 1)

    assert [found is None for found in claim(scene, [instruction_id] * 2)] == [False, True]
    assert scene.cycle.count("attempts") == 1


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM instructions WHERE chat_id = %(chat)s FOR UPDATE",
        "SELECT FROM chats WHERE id = %(chat)s FOR UPDATE",
    ],
    ids=["the turn", "its chat"],
)
def test_nobody_waits_for_a_turn_that_somebody_has_locked(scene: Scene, statement: str) -> None:
    ids = turns(scene, 3)

    with locked(scene, statement, chat=scene.chat_id):
        found = claim(scene, ids)

    assert [item is None for item in found] == [True, False, False]


def test_nobody_waits_for_a_user_who_is_being_deleted(scene: Scene) -> None:
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    chat = scene.cycle.do("CHAT_CREATE", title="Bob's", user_ids=[bob])["chat"]["chat_id"]
    ids = [scene.decoded("Hello", user_id=bob, chat_id=chat), *turns(scene, 1)]

    with locked(scene, "SELECT FROM users WHERE id = %(user)s FOR UPDATE", user=bob):
        found = claim(scene, ids)

    assert [item is None for item in found] == [True, False]


@pytest.fixture
def of_bob(scene: Scene) -> tuple[UUID, str]:
    """A turn of somebody else's, and the name of his limit's lock."""
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    chat = scene.cycle.do("CHAT_CREATE", title="Bob's", user_ids=[bob])["chat"]["chat_id"]
    return scene.decoded("Hello", user_id=bob, chat_id=chat), Limit("user", 16, user_id=bob).key


LIMIT = "SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))"


def test_a_limit_that_somebody_has_for_long_is_waited_for_by_nobody_else(
    scene: Scene, of_bob: tuple[UUID, str]
) -> None:
    ids = [of_bob[0], *turns(scene, 2)]

    with locked(scene, LIMIT, key=of_bob[1]), pytest.raises(errors.LockNotAvailable):
        claim(scene, ids)

    assert scene.cycle.count("attempts") == 0
    assert None not in claim(scene, ids)


def test_turns_are_answered_while_another_ones_limit_is_locked(
    scene: Scene, of_bob: tuple[UUID, str]
) -> None:
    bobs, key = of_bob
    ids = turns(scene, 3)

    with ThreadPoolExecutor(4) as pool:
        with locked(scene, LIMIT, key=key):
            done = [pool.submit(scene.cycle.execute, i) for i in (bobs, *ids)]
            assert [future.result(10) for future in done[1:]] == [True] * 3
            assert not done[0].done()
        assert done[0].result(10)

    assert len(scene.provider.calls) == scene.cycle.count("attempts") == 4


def test_what_cannot_be_asked_is_left_and_the_others_begin(scene: Scene) -> None:
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"context_window": 100})
    long, short = turns(scene, 2)
    scene.cycle.sql(
        "UPDATE instructions SET data = jsonb_set(data, '{user_input}', to_jsonb(repeat('x', 999)))"
        " WHERE id = :id",
        id=long,
    )

    assert [found is None for found in claim(scene, [long, short])] == [True, False]


def test_two_turns_with_the_same_stripe_of_a_limit_begin_one_after_the_other(
    scene: Scene, configure: Configure
) -> None:
    configure(user_concurrency=16)  # four stripes
    ids = turns(scene, 3)
    scene.cycle.sql("UPDATE instructions SET seq = 4000 WHERE id = :id", id=ids[0])
    scene.cycle.sql("UPDATE instructions SET seq = 4001 WHERE id = :id", id=ids[1])
    scene.cycle.sql("UPDATE instructions SET seq = 4004 WHERE id = :id", id=ids[2])

    first, second, third = claim(scene, ids)

    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert third is PUT_OFF
    assert isinstance(claim(scene, [ids[2]])[0], tuple)


def test_turns_that_a_limit_may_have_to_turn_away_are_left_and_the_others_begin(
    scene: Scene, configure: Configure, of_bob: tuple[UUID, str]
) -> None:
    configure(user_concurrency=8)
    *under_way, beyond = turns(scene, 6)
    for instruction_id in under_way:
        claimed(scene, [instruction_id])

    assert [found is None for found in claim(scene, [beyond, of_bob[0]])] == [True, False]


def test_answers_are_settled_in_one_transaction(scene: Scene) -> None:
    scene.provider.script(*[scripts.answer(f"Answer {n}") for n in range(3)])
    ids = turns(scene, 3)
    settlements = answered(claimed(scene, ids))

    assert settle(scene, settlements) == [True] * 3

    rows = [scene.cycle.row(instruction_id) for instruction_id in ids]
    assert [(row.state, row.turn) for row in rows] == [("executed", "done")] * 3
    said = [row.outcome["data"]["llm_response"]["content"] for row in rows if row.outcome]
    assert said == ["Answer 0", "Answer 1", "Answer 2"]
    assert {row.outcome["message"] for row in rows if row.outcome} == {SAYS}
    assert scene.cycle.sql("SELECT count(DISTINCT CAST(xmin AS text)) FROM attempts") == [(1,)]
    last = scene.cycle.sql(
        "SELECT DISTINCT ON (instruction_id) events->-1->>'type' FROM events"
        " ORDER BY instruction_id, last DESC"
    )
    assert [row[0] for row in last] == ["response.completed"] * 3


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM attempts WHERE instruction_id = CAST(%(id)s AS uuid) FOR UPDATE",
        "SELECT FROM instructions WHERE id = CAST(%(id)s AS uuid) FOR UPDATE",
        "SELECT FROM messages WHERE instruction_id = CAST(%(id)s AS uuid) FOR UPDATE",
    ],
    ids=["its line in the ledger", "the turn", "its messages"],
)
def test_nobody_waits_for_an_answer_that_somebody_has_locked(scene: Scene, statement: str) -> None:
    ids = turns(scene, 3)
    settlements = answered(claimed(scene, ids))

    with locked(scene, statement, id=str(ids[1])):
        assert settle(scene, settlements) == [True, False, True]

    assert scene.cycle.row(ids[1]).outcome is None
    assert settle(scene, settlements) == [False, True, False]


def test_a_turn_that_is_to_be_cancelled_is_left_and_the_others_are_settled(scene: Scene) -> None:
    ids = turns(scene, 2)
    settlements = answered(claimed(scene, ids))
    scene.cycle.sql(
        "UPDATE instructions SET cancel_requested = 'cancelled' WHERE id = :id", id=ids[0]
    )

    assert settle(scene, settlements) == [False, True]
    assert scene.cycle.count("attempts", "status = 'started'") == 1


def test_the_next_turn_of_each_chat_is_let_go(scene: Scene) -> None:
    ids = turns(scene, 2)
    chats = [scene.cycle.row(instruction_id).chat_id for instruction_id in ids]
    behind = [scene.decoded("And then?", chat_id=chat_id) for chat_id in chats]
    for instruction_id in behind:
        assert not scene.cycle.execute(instruction_id)
    settlements = answered(claimed(scene, ids))

    found = scene.cycle.database.run_on_driver(
        lambda rows: straight_settle.settle(rows, settlements)
    )

    released = [[item.instruction_id for item in after.released] for after in found if after]
    assert released == [[instruction_id] for instruction_id in behind]
    assert [scene.cycle.row(i).state for i in behind] == ["decoded"] * 2
