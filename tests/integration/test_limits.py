"""Limits of calls at once and per minute: kept across workers, waited for, and fair."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.db import driver
from llmchatlinker.units import limits, sharing
from tests.fixtures.configuration import Configure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts
from tests.servers.watching import Watch

COUNT = 12


def chats(scene: Scene, count: int, user_id: int | None = None) -> list[int]:
    """That many chats of a user (ada)."""
    users = [user_id or scene.user_id]
    made = [scene.cycle.do("CHAT_CREATE", title="More", user_ids=users) for _ in range(count)]
    return [item["chat"]["chat_id"] for item in made]


def limit(scene: Scene, of: str, configure: Configure, most: int = 2) -> None:
    """Set one of the limits."""
    if of == "user":
        configure(user_concurrency=most)
    elif of == "provider":
        scene.cycle.do(
            "LLM_PROVIDER_UPDATE",
            provider_id=scene.provider_id,
            settings={"max_concurrency": most},
        )
    elif of == "user at the provider":
        scene.cycle.do(
            "LLM_PROVIDER_UPDATE",
            provider_id=scene.provider_id,
            settings={"user_concurrency": most},
        )
    else:
        scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"max_concurrency": most})


def run_all(scene: Scene, waiting: list[UUID]) -> None:
    """Execute them at once, and then whatever is sent on, several at a time."""

    def work(instruction_id: UUID) -> bool:
        return scene.cycle.finish(instruction_id, "execute")

    at_once([lambda i=i: work(i) for i in waiting])
    eventually(lambda: _deliver(scene, waiting))


def _deliver(scene: Scene, waiting: list[UUID]) -> bool:
    scene.cycle.deliver("llm.generate", "database")
    return all(scene.cycle.row(i).state == "final" for i in waiting)


@pytest.mark.parametrize("of", ["provider", "llm", "user", "user at the provider"])
def test_what_exceeds_a_limit_waits_and_is_answered(
    scene: Scene, configure: Configure, of: str
) -> None:
    limit(scene, of, configure)
    scene.provider.otherwise = watch = Watch()
    waiting = [scene.decoded("Hello", chat_id=chat_id) for chat_id in chats(scene, 6)]

    run_all(scene, waiting)

    assert watch.most <= 2
    assert all(scene.cycle.envelope(i)["status"] == "success" for i in waiting)
    assert len(scene.provider.calls) == scene.cycle.count("attempts") == 6
    assert scene.cycle.count("instructions", "not_before IS NOT NULL") == 0


@pytest.mark.parametrize(("most", "stripes"), [(8, 4), (32, 4), (64, 8), (128, 16), (100_000, 64)])
def test_more_calls_are_opened_at_the_same_moment_the_farther_off_their_limit_is(
    most: int, stripes: int
) -> None:
    assert limits.Limit("user", most).stripes == stripes


@pytest.mark.parametrize("most", [2 * limits.STRIPES, 6 * limits.STRIPES])
def test_limits_that_claims_share_hold_when_many_begin_at_once(
    scene: Scene, configure: Configure, most: int
) -> None:
    limit(scene, "user", configure, most + 1)
    limit(scene, "provider", configure, most)
    scene.provider.otherwise = watch = Watch(0.3)
    waiting = [scene.decoded("Hello", chat_id=chat_id) for chat_id in chats(scene, 2 * most)]

    run_all(scene, waiting)

    assert 1 < watch.most <= most
    assert all(scene.cycle.envelope(i)["status"] == "success" for i in waiting)
    assert len(scene.provider.calls) == scene.cycle.count("attempts") == 2 * most


#: Calls under way in the test below, and what a limit of 100 is told of before.
UNDER_WAY = 60


@pytest.mark.parametrize(
    ("known", "counted"),
    [
        ({}, True),
        ({"calls_known": UNDER_WAY, "newest_known": UNDER_WAY}, False),
        ({"calls_known": 2, "newest_known": 2}, False),
        # Twice the stripes are kept free, for calls that neither look has seen.
        ({"calls_known": 76, "newest_known": UNDER_WAY}, False),
        ({"calls_known": 77, "newest_known": UNDER_WAY}, True),
        ({"calls_known": 18, "newest_known": 1}, True),
        # The ledger is older than what is known of it: it was restored.
        ({"calls_known": 0, "newest_known": UNDER_WAY + 1}, True),
    ],
)
@pytest.mark.parametrize("of", ["user", "provider"])
def test_calls_are_counted_where_what_is_known_leaves_no_room(
    scene: Scene, of: str, known: dict[str, int], counted: bool
) -> None:
    of_user, of_provider = scene.user_id, scene.provider_id
    with Session(scene.cycle.database.engine) as session, session.begin():
        ids = {"user": of_user, "provider": of_provider, "calls": UNDER_WAY}
        session.execute(text(_CALLS), ids)
        limit = limits.Limit(
            of,
            100,
            user_id=of_user if of == "user" else None,
            provider_id=of_provider if of == "provider" else None,
        )
        values = limit.values | {"stripes": 12} | known
        asked = f"WITH {sharing.COUNTED} SELECT calls, {sharing.COUNTS} FROM counted"
        found = driver.rows(session, {"limits": json.dumps([values])}, asked)

    calls = UNDER_WAY if counted else None
    assert found == [(calls, {values["key"]: calls} if counted else None, UNDER_WAY)]


_CALLS = """
    INSERT INTO attempts (instruction_id, number, user_id, provider_id, provider_name, llm_name,
                          worker, lease_until)
    SELECT gen_random_uuid(), 1, :user, :provider, 'p', 'l', 'w', now() + interval '1 minute'
      FROM generate_series(1, :calls)
"""


@pytest.mark.parametrize(
    ("of", "reason"), [("provider", "provider"), ("llm", "llm"), ("user", "user")]
)
def test_a_turn_beyond_a_limit_is_parked_and_its_slot_is_free(
    scene: Scene, configure: Configure, of: str, reason: str
) -> None:
    limit(scene, of, configure, 1)
    gate = scripts.Gate()
    scene.provider.script(gate)
    (other,) = chats(scene, 1)
    first, second = scene.decoded("one"), scene.decoded("two", chat_id=other)

    def meanwhile() -> None:
        scene.provider.wait_for_calls(1)
        try:
            assert not scene.cycle.execute(second)
            row = scene.cycle.row(second)
            assert (row.state, row.wait_reason, row.turn) == ("waiting", reason, "queued")
        finally:
            gate.open()

    at_once([lambda: scene.cycle.execute(first), meanwhile])

    assert scene.cycle.row(second).state == "decoded", "the end of the first lets it go on"
    assert scene.cycle.deliver("llm.generate") == [second]
    assert len(scene.provider.calls) == 2


def test_one_user_with_many_turns_delays_nobody_else(scene: Scene, configure: Configure) -> None:
    limit(scene, "provider", configure, 1)
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    (bobs,) = chats(scene, 1, bob)
    gate = scripts.Gate()
    scene.provider.script(gate)
    many = [scene.decoded(f"ada {n}", chat_id=c) for n, c in enumerate(chats(scene, 8))]
    one = scene.decoded("bob", chat_id=bobs, user_id=bob)

    def meanwhile() -> None:
        scene.provider.wait_for_calls(1)
        try:
            for instruction_id in (*many[1:], one):
                scene.cycle.execute(instruction_id)
        finally:
            gate.open()

    at_once([lambda: scene.cycle.execute(many[0]), meanwhile])
    run_rest(scene, [*many, one])

    assert [call.question for call in scene.provider.calls][:2] == ["ada 0", "bob"]
    asked = [call.question for call in scene.provider.calls if call.question != "bob"]
    assert asked == [f"ada {n}" for n in range(8)], "in the order of submission"


def run_rest(scene: Scene, waiting: list[UUID]) -> None:
    for instruction_id in waiting:
        scene.cycle.store(instruction_id)
    eventually(lambda: _deliver(scene, waiting))


def test_a_newcomer_goes_behind_those_who_wait(scene: Scene, configure: Configure) -> None:
    limit(scene, "provider", configure, 1)
    first, second = chats(scene, 2)
    waiting, newcomer = scene.decoded("1", chat_id=first), scene.decoded("2", chat_id=second)
    scene.cycle.sql(
        "UPDATE instructions SET state = 'waiting', wait_reason = 'provider', provider_id = :p,"
        " not_before = now() WHERE id = :id",
        p=scene.provider_id,
        id=waiting,
    )

    assert not scene.cycle.execute(newcomer)

    assert scene.cycle.row(newcomer).state == "waiting"
    assert scene.cycle.deliver("llm.generate") == [waiting]
    assert scene.cycle.deliver("llm.generate") == [newcomer]


def per_minute(scene: Scene, of: str, configure: Configure) -> None:
    """Two calls per minute."""
    cycle = scene.cycle
    if of == "user":
        configure(user_requests_per_minute=2)
    elif of == "llm":
        cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"requests_per_minute": 2})
    else:
        name = "requests_per_minute" if of == "provider" else "user_requests_per_minute"
        cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, settings={name: 2})


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        ("provider", "rate"),
        ("llm", "llm_rate"),
        ("user", "user_rate"),
        ("user at the provider", "user_rate"),
    ],
)
def test_a_limit_per_minute_is_kept(
    scene: Scene, configure: Configure, of: str, reason: str
) -> None:
    per_minute(scene, of, configure)
    made = chats(scene, 4)
    waiting = [scene.decoded("Hello", chat_id=chat_id) for chat_id in made]
    for instruction_id in waiting:
        scene.cycle.execute(instruction_id)
    assert len(scene.provider.calls) == 2
    rows = [scene.cycle.row(i) for i in waiting[2:]]
    assert {(row.state, row.wait_reason) for row in rows} == {("waiting", reason)}
    # A minute after the first call, as of when that is looked up.
    ((first,),) = scene.cycle.sql("SELECT min(started_at) FROM attempts")
    assert all(60 <= (row.not_before - first).total_seconds() <= 61 for row in rows)

    def a_minute_later() -> None:
        from llmchatlinker.waiting import release_due

        earlier = "- interval '61 seconds'"
        scene.cycle.sql(f"UPDATE attempts SET started_at = started_at {earlier}")
        scene.cycle.sql(f"UPDATE instructions SET not_before = not_before {earlier}")
        assert release_due() == 2

    a_minute_later()
    run_rest(scene, waiting)
    assert len(scene.provider.calls) == 4


def test_a_users_limit_per_minute_is_no_other_users(scene: Scene, configure: Configure) -> None:
    configure(user_requests_per_minute=1)
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    (bobs,) = chats(scene, 1, bob)
    scene.ask("one")

    assert not scene.cycle.execute(scene.decoded("two"))

    assert scene.ask("three", chat_id=bobs, user_id=bob)["content"] == "You said: three"


def test_who_waits_for_a_limit_per_minute_goes_on_when_it_is_lifted(
    scene: Scene, configure: Configure
) -> None:
    from llmchatlinker.waiting import release_due

    configure(user_requests_per_minute=1)
    scene.ask("one")
    waiting = scene.decoded("two")
    scene.cycle.execute(waiting)

    configure(user_requests_per_minute=0)
    scene.cycle.sql("UPDATE instructions SET not_before = now() WHERE state = 'waiting'")

    assert release_due() == 1
    assert scene.cycle.deliver("llm.generate") == [waiting]


def test_a_lost_release_is_found_by_the_sweeper(scene: Scene, configure: Configure) -> None:
    from llmchatlinker.waiting import release_due

    limit(scene, "provider", configure, 1)
    instruction_id = scene.decoded("Hello")
    scene.cycle.sql(
        "UPDATE instructions SET state = 'waiting', wait_reason = 'provider', provider_id = :p,"
        " not_before = now() WHERE id = :id",
        p=scene.provider_id,
        id=instruction_id,
    )

    assert (release_due(), release_due(slots=True)) == (0, 1)

    assert scene.cycle.deliver("llm.generate") == [instruction_id]


def test_a_users_limit_per_minute_holds_when_many_begin_at_once_in_two_workers(
    scene: Scene, configure: Configure, worker: StartWorker
) -> None:
    most = 5
    configure(user_requests_per_minute=most)
    made = chats(scene, COUNT)
    for _ in range(2):
        worker()
    client = LLMChatLinkerClient()

    results = [
        client.submit("LLM_RESPONSE_GENERATE", **scene.turn | {"chat_id": c}, user_input="Hello")
        for c in made
    ]

    waiting = "state = 'waiting' AND wait_reason = 'user_rate'"
    eventually(lambda: scene.cycle.count("instructions", waiting) == COUNT - most)
    assert sum(result.ready() for result in results) <= most
    scene.provider.wait_for_calls(most)  # which are made once they are in the ledger
    assert len(scene.provider.calls) == scene.cycle.count("attempts") == most


def test_limits_hold_across_workers(
    scene: Scene, configure: Configure, worker: StartWorker
) -> None:
    limit(scene, "provider", configure, 2)
    scene.provider.otherwise = watch = Watch(0.1)
    gate = scripts.Gate(watch)
    scene.provider.script(gate, gate)  # the first two, until both are there
    made = chats(scene, COUNT)
    for _ in range(2):
        worker()
    client = LLMChatLinkerClient()
    data: dict[str, Any] = scene.turn | {"user_input": "Hello"}

    results = [
        client.submit("LLM_RESPONSE_GENERATE", **data | {"chat_id": chat_id}) for chat_id in made
    ]
    scene.provider.wait_for_calls(2)
    gate.open()
    envelopes = [result.get(timeout=60) for result in results]

    assert {envelope["status"] for envelope in envelopes} == {"success"}
    assert watch.most == 2
    assert len(scene.provider.calls) == COUNT


def test_whether_anybody_waits_is_an_index_s_matter_without_statistics_too(scene: Scene) -> None:
    def explain(session: Any) -> str:
        connection = session.connection()
        connection.exec_driver_sql(
            "CREATE TEMPORARY TABLE instructions (LIKE instructions INCLUDING ALL)"
        )
        connection.exec_driver_sql(
            "INSERT INTO instructions (id, type, data, deadline_at)"
            " SELECT gen_random_uuid(), 'USER_LIST', '{}', now() FROM generate_series(1, 2000)"
        )
        asked = f"SELECT FROM instructions WHERE {limits.HAS_A_TIME} AND state = 'waiting'"
        return str(connection.exec_driver_sql(f"EXPLAIN {asked}").all())

    plan = scene.cycle.database.run(explain)

    assert "Seq Scan" not in plan
