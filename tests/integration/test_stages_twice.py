"""Every stage may be delivered twice, in a row and at once: its effects are there once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from llmchatlinker import stages
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.topology import DECODE_TASK
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once
from tests.servers import scripts

#: Instructions with an effect that would show if it happened twice.
EFFECTS: list[tuple[str, dict[str, Any]]] = [
    ("USER_CREATE", {"username": "bob"}),
    ("CHAT_CREATE", {"title": "Other", "user_ids": [1]}),
    ("CHAT_UPDATE", {"chat_id": 1, "title": "New"}),
    ("CHAT_DELETE", {"chat_id": 1}),
    ("USER_DELETE", {"user_id": 1}),
    ("USER_ERASE", {"user_id": 1}),
    ("LLM_ADD", {"provider_id": 1, "llm_name": "second"}),
    ("LLM_PROVIDER_DELETE", {"provider_id": 1, "force": True}),
    ("LLM_RESPONSE_GENERATE", {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": "Hello"}),
    ("LLM_PROVIDER_DISCOVER", {"provider_id": 1}),
    ("USER_GET", {"user_id": 77}),
]
each_effect = pytest.mark.parametrize(("name", "data"), EFFECTS, ids=[e[0] for e in EFFECTS])
STAGES = ("decode", "execute", "store")


def snapshot(cycle: Cycle, without: str = "instructions") -> dict[str, list[str]]:
    """All rows but the instructions' own, which keep times."""
    tables = [
        row[0] for row in cycle.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    return {
        name: sorted(row[0] for row in cycle.sql(f"SELECT CAST(t.* AS text) FROM {name} t"))
        for name in tables
        if name != without
    }


def reached(cycle: Cycle, stage: str, name: str, data: dict[str, Any]) -> Any:
    """An instruction for which ``stage`` is due."""
    instruction_id = cycle.submit(name, **data)
    for earlier in STAGES[: STAGES.index(stage)]:
        assert getattr(cycle, earlier)(instruction_id)
    return instruction_id


@each_effect
@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_delivered_twice_in_a_row_works_once(
    scene: Scene, stage: str, name: str, data: dict[str, Any]
) -> None:
    cycle = scene.cycle
    deliver = getattr(cycle, stage)
    instruction_id = reached(cycle, stage, name, data)
    assert deliver(instruction_id)
    rows, outcome = snapshot(cycle), cycle.row(instruction_id).outcome

    goes_on = deliver(instruction_id)

    assert goes_on, "the chain must go on from what is there"
    assert snapshot(cycle) == rows
    assert cycle.row(instruction_id).outcome == outcome
    assert len(scene.provider.calls) <= 1


@each_effect
def test_every_stage_delivered_at_once_by_four_workers_works_once(
    scene: Scene, name: str, data: dict[str, Any]
) -> None:
    cycle = scene.cycle
    instruction_id = cycle.submit(name, **data)
    before = {table: len(rows) for table, rows in snapshot(cycle).items()}

    for stage in STAGES:
        deliver = getattr(cycle, stage)
        results = at_once([lambda deliver=deliver: deliver(instruction_id)] * 4)
        assert any(results)

    envelope = cycle.envelope(instruction_id)
    assert len(scene.provider.calls) <= 1
    # What the same instruction does when each stage comes once, judged by its own outcome.
    after = {table: len(rows) for table, rows in snapshot(cycle).items()}
    grown = {table: after[table] - before[table] for table in after if after[table] > before[table]}
    grown.pop("events", None)  # a row for each flush, and as many as there was time for
    assert all(count <= 2 for count in grown.values()), grown
    numbers = cycle.sql(
        "SELECT n, count(*) FROM events, generate_series(first, last) n GROUP BY n ORDER BY n"
    )
    assert [tuple(row) for row in numbers] == [(n + 1, 1) for n in range(len(numbers))]
    if name in ("USER_CREATE", "CHAT_CREATE", "LLM_ADD"):
        assert set(grown.values()) == {1}
    if name == "LLM_RESPONSE_GENERATE":
        assert grown == {"messages": 2, "attempts": 1}
    assert envelope["status"] == ("error" if name == "USER_GET" else "success")


def test_a_second_delivery_during_the_call_leaves_it_alone(scene: Scene) -> None:
    gate = scripts.Gate()
    scene.provider.script(gate)
    instruction_id = scene.decoded("Hello")

    def second() -> bool:
        scene.provider.wait_for_calls(1)
        try:
            return scene.cycle.execute(instruction_id)
        finally:
            gate.open()

    first_goes_on, second_goes_on = at_once([lambda: scene.cycle.execute(instruction_id), second])

    assert (first_goes_on, second_goes_on) == (True, False)
    assert len(scene.provider.calls) == 1
    assert scene.said() == ["Hello", "You said: Hello"]


def test_an_instruction_whose_stages_come_twice_leaves_one_record(cycle: Cycle) -> None:
    user_id = cycle.do("USER_CREATE", username="ada")["user"]["user_id"]
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=user_id)
    instruction_id = cycle.submit("USER_GET", user_id=user_id)
    for stage in STAGES:
        for _ in range(2):
            getattr(cycle, stage)(instruction_id)

    assert cycle.count("records", "instruction_id = :id", id=instruction_id) == 1


# --- messages of nobody -------------------------------------------------------------------------


def test_a_message_of_an_id_that_was_never_submitted_is_dropped(cycle: Cycle) -> None:
    unknown = new_instruction_id()

    assert not cycle.decode(unknown)
    for spec in INSTRUCTION_SET.values():
        assert not stages.execute(unknown, spec, "the test")
    cycle.store(unknown)

    assert cycle.count("instructions") == 0
    assert cycle.count("attempts") == 0


@pytest.mark.parametrize("stage", ["decode", "execute"])
def test_a_message_of_a_withdrawn_instruction_is_dropped(cycle: Cycle, stage: str) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    cycle.sql(
        "UPDATE instructions SET state = 'withdrawn', final_at = now() WHERE id = :id",
        id=instruction_id,
    )

    assert not getattr(cycle, stage)(instruction_id)
    cycle.store(instruction_id)

    assert cycle.count("users") == 0
    row = cycle.row(instruction_id)
    assert (row.state, row.outcome) == ("withdrawn", None)


def test_a_message_for_another_type_than_the_rows_is_dropped(cycle: Cycle) -> None:
    ada = cycle.do("USER_CREATE", username="ada")["user"]["user_id"]
    instruction_id = cycle.decoded("USER_GET", user_id=ada)

    assert not stages.execute(instruction_id, INSTRUCTION_SET["USER_DELETE"], "the test")

    assert cycle.count("users") == 1
    assert cycle.row(instruction_id).state == "decoded"


@pytest.mark.parametrize("stage", ["execute", "store"])
def test_a_stage_that_comes_before_its_turn_changes_nothing(cycle: Cycle, stage: str) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")

    getattr(cycle, stage)(instruction_id)

    row = cycle.row(instruction_id)
    assert (row.state, row.outcome, row.final_at) == ("submitted", None, None)
    assert cycle.finish(instruction_id)
    assert cycle.envelope(instruction_id)["status"] == "success"


# --- what a message is --------------------------------------------------------------------------


def test_a_message_carries_the_id_and_nothing_else(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="a-secret-name", profile="a-secret")

    (letter,) = cycle.broker.take_all("control")

    arguments, keywords, _ = json.loads(letter.body)
    assert (letter.task, arguments, keywords) == (DECODE_TASK, [str(instruction_id)], {})
    assert "a-secret" not in str([letter.headers, letter.properties, letter.body])
    assert letter.properties["delivery_mode"] == 2


def test_the_last_task_of_the_chain_has_the_clients_id(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")

    (letter,) = cycle.broker.take_all("control")

    chain = json.loads(letter.body)[2]["chain"]
    assert chain[0]["options"]["task_id"] == str(instruction_id)
    assert letter.headers["root_id"] == str(instruction_id)
    assert letter.headers["id"] != str(instruction_id)


def test_a_defect_of_a_handler_ends_the_instruction_and_changes_nothing(cycle: Cycle) -> None:
    cycle.do("USER_CREATE", username="ada")
    cycle.sql("ALTER TABLE users ADD CONSTRAINT no_bob CHECK (username <> 'bob')")

    failed = cycle.fail("USER_UPDATE", user_id=1, username="bob")

    assert (failed.code, failed.stage) == ("internal", "execute")
    assert "bob" not in str(failed)
    assert cycle.database.run(lambda s: s.scalar(text("SELECT username FROM users"))) == "ada"
