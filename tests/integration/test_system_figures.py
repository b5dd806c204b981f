"""What the sweeper reads of the whole system for the metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmchatlinker.sweeper import sweep
from llmchatlinker.telemetry import gauges, switch
from tests.fixtures.scenes import Scene


@pytest.fixture
def figures() -> Iterator[Any]:
    """Sweep once, and return the figures by name and labels."""
    switch.switch_on()

    def read() -> dict[tuple[str, tuple[str, ...]], float]:
        sweep()
        return {(name, labels): value for name, labels, value in gauges.samples()}

    yield read
    gauges.forget()
    switch.switch_off()


def test_figures_are_of_what_is_open_under_way_cooling_in_doubt_and_kept(
    scene: Scene, figures: Any
) -> None:
    cycle = scene.cycle
    cycle.submit("USER_LIST")
    turns = [scene.decoded(f"turn {number}") for number in range(3)]
    cycle.execute(scene.submit("not decoded yet"))
    cycle.sql("UPDATE instructions SET turn = 'active' WHERE id = :id", id=turns[0])
    cycle.sql(
        "UPDATE instructions SET state = 'waiting', wait_reason = 'rate', "
        "submitted_at = now() - interval '50 seconds' WHERE id = :id",
        id=turns[1],
    )
    started, doubt = "'started', now() + interval '1 minute', NULL", "'in_doubt', now(), now()"
    old = "'in_doubt', now(), now() - interval '2 hours'"
    for number, values in enumerate((started, started, doubt, old), 1):
        cycle.sql(
            "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, status, "
            f"lease_until, finished_at) VALUES (:id, :number, 'scripted', 'echo', 'w', {values})",
            id=turns[0],
            number=number,
        )
    cycle.sql(
        "INSERT INTO provider_health (provider_id, failures, cooldown_until) "
        "VALUES (:id, 5, now() + interval '1 minute')",
        id=scene.provider_id,
    )
    for became in ("kept", "kept", "settled"):
        cycle.sql(
            "INSERT INTO dead_letters (reason, size, became, fingerprint) "
            "VALUES ('rejected', 1, :became, '')",
            became=became,
        )

    found = figures()

    def opened(*labels: str) -> float:
        return found["open_instructions", labels]

    assert opened("control", "submitted", "") == 2
    assert opened("llm.generate", "generating", "") == 1
    assert opened("llm.generate", "waiting", "rate") == 1
    assert opened("llm.generate", "decoded", "") == 1
    assert opened("chat", "decoded", "") == opened("database", "executed", "") == 0
    assert 50 <= found["oldest_open_seconds", ("llm.generate", "waiting", "rate")] < 600
    assert found["calls_under_way", ("scripted",)] == 2
    assert found["in_doubt_attempts", ("scripted",)] == 1
    assert 0 < found["provider_cooldown_seconds", ("scripted",)] <= 60
    assert found["dead_letters_kept", ()] == 2


def test_figures_go_by_indexes_of_what_is_open(scene: Scene) -> None:
    def explain(session: Any) -> str:
        connection = session.connection()
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        values = {"providers": gauges.PROVIDERS}
        return str(connection.exec_driver_sql(f"EXPLAIN {gauges._READ}", values).all())

    plan = scene.cycle.database.run(explain)

    indexes = ("instructions_open", "attempts_started", "attempts_in_doubt", "dead_letters_kept")
    assert [name for name in indexes if f"ix_{name}" not in plan] == []


def test_nobody_who_did_not_ask_reads_them(scene: Scene) -> None:
    gauges.forget()

    sweep()

    assert list(gauges.samples()) == []
