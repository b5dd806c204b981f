"""What is kept for how long: what is purged, and what never is."""

from __future__ import annotations

import pytest

from llmchatlinker.retention import BATCH, purge
from llmchatlinker.sweeper import sweep
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene


def age(cycle: Cycle, table: str, column: str, days: float) -> None:
    cycle.sql(f"UPDATE {table} SET {column} = {column} - make_interval(hours => {int(days * 24)})")


def many(cycle: Cycle, count: int, where: str = "now() - interval '8 days'") -> None:
    cycle.sql(
        "INSERT INTO instructions (id, type, data, state, outcome, submitted_at, final_at, deadline_at)"
        f" SELECT gen_random_uuid(), 'USER_LIST', '{{}}', 'final', '{{}}', {where}, {where}, {where}"
        f" FROM generate_series(1, {count})"
    )


def test_nothing_young_is_purged(scene: Scene) -> None:
    scene.ask("Hello")

    assert purge() == {}


def test_an_old_instruction_goes_with_its_stream_and_the_chat_stays(scene: Scene) -> None:
    scene.ask("Hello")
    age(scene.cycle, "instructions", "final_at", 7.5)

    assert purge()["instructions"] == 5

    assert scene.cycle.count("instructions") == 0
    assert scene.cycle.count("events") == 0
    assert scene.cycle.count("attempts") == 1
    assert scene.said() == ["Hello", "You said: Hello"]


def test_what_is_open_is_never_purged(scene: Scene) -> None:
    parked, running = scene.decoded("one"), scene.submit("two")
    for column in ("submitted_at", "published_at"):
        age(scene.cycle, "instructions", column, 30)
    age(scene.cycle, "instructions", "final_at", 30)

    purge()

    assert scene.cycle.row(parked).final_at is None
    assert scene.cycle.row(running).final_at is None


def test_a_turn_whose_call_goes_on_is_left_until_it_is_over(scene: Scene) -> None:
    scene.ask("Hello")
    age(scene.cycle, "instructions", "final_at", 8)
    scene.cycle.sql("UPDATE instructions SET turn = 'active' WHERE turn IS NOT NULL")

    purge()

    assert scene.cycle.count("instructions") == 1


def test_more_than_a_batch_goes_in_one_round(cycle: Cycle) -> None:
    many(cycle, 3 * BATCH + 1)

    assert purge(seconds=60) == {"instructions": 3 * BATCH + 1}


def test_young_rows_in_front_do_not_keep_old_ones(cycle: Cycle) -> None:
    many(cycle, 100, "now()")
    many(cycle, 10)

    assert purge() == {"instructions": 10}


@pytest.mark.parametrize(
    ("table", "column", "days", "kind"),
    [
        ("attempts", "started_at", 401, "attempts"),
        ("dead_letters", "arrived_at", 31, "dead letters"),
        ("task_results", "date_done", 1.5, "task results"),
    ],
)
def test_every_kind_has_its_own_time(
    scene: Scene, table: str, column: str, days: float, kind: str
) -> None:
    scene.ask("Hello")
    scene.cycle.sql(
        "INSERT INTO dead_letters (reason, size, became, fingerprint) VALUES ('x', 1, 'kept', '')"
    )
    scene.cycle.sql("INSERT INTO task_results (task_id, status) VALUES ('a', 'SUCCESS')")
    assert purge() == {}

    age(scene.cycle, table, column, days)

    assert purge() == {kind: 1}


def test_records_stay_until_they_are_deleted_unless_a_setting_says_otherwise(
    cycle: Cycle, configure: Configure
) -> None:
    user = cycle.do("USER_CREATE", username="ada")["user"]
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=user["user_id"])
    cycle.do("USER_GET", user_id=user["user_id"])
    age(cycle, "records", "finished_at", 1000)
    assert purge() == {}

    configure(record_retention=86_400.0)

    assert purge()["records"] > 0


def test_the_ledger_may_be_kept_for_ever(scene: Scene, configure: Configure) -> None:
    scene.ask("Hello")
    age(scene.cycle, "attempts", "started_at", 4000)
    configure(ledger_retention=0.0)

    assert purge() == {}


def test_the_sweeper_purges(cycle: Cycle) -> None:
    many(cycle, 7)

    assert sweep() == {"purged instructions": 7} | dict.fromkeys(sweep(), 0)
