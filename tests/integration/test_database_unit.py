"""The Database Manage Unit: instructions as their operator sees them, and usage."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.servers import scripts

VERSION_4 = "6f6b8d4c-6c1a-4a58-9c57-0d6f9a1f2b3c"
NEVER_SUBMITTED = "019b76da-a800-7000-8000-000000000001"


def test_an_instruction_shows_its_way_and_never_its_text(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada", profile="a secret")
    cycle.finish(instruction_id)

    shown = cycle.do("INSTRUCTION_GET", instruction_id=str(instruction_id))["instruction"]

    moments = ("submitted_at", "decoded_at", "executed_at", "final_at", "deadline_at")
    times = [datetime.fromisoformat(shown.pop(name)) for name in moments]
    assert times == sorted(times)
    assert {time.tzinfo for time in times} == {UTC}
    assert shown == {
        "instruction_id": str(instruction_id),
        "seq": 1,
        "type": "USER_CREATE",
        "state": "final",
        "outcome": "success",
        "wait_reason": None,
        "not_before": None,
        "cancel_requested": None,
        "attempts": [],
    }


def test_an_instruction_that_only_waits_says_so(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")

    shown = cycle.do("INSTRUCTION_GET", instruction_id=str(instruction_id))["instruction"]

    assert (shown["state"], shown["outcome"], shown["decoded_at"]) == ("submitted", None, None)


def test_a_failed_instruction_shows_its_code(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_GET", user_id=77)
    cycle.finish(instruction_id)

    shown = cycle.do("INSTRUCTION_GET", instruction_id=str(instruction_id))["instruction"]

    assert shown["outcome"] == "not_found"


@pytest.mark.parametrize("unknown", [VERSION_4, NEVER_SUBMITTED])
def test_an_id_of_no_instruction_is_not_found(cycle: Cycle, unknown: str) -> None:
    failed = cycle.fail("INSTRUCTION_GET", instruction_id=unknown)

    assert (failed.code, failed.details["value"]) == ("not_found", unknown)


def test_an_id_may_be_written_in_capitals(cycle: Cycle) -> None:
    instruction_id = str(cycle.submit("USER_LIST"))

    shown = cycle.do("INSTRUCTION_GET", instruction_id=instruction_id.upper())

    assert shown["instruction"]["instruction_id"] == instruction_id


def test_instructions_are_listed_newest_first_and_by_what_is_asked(cycle: Cycle) -> None:
    cycle.do("USER_CREATE", username="ada")
    cycle.do("USER_CREATE", username="bob")
    cycle.do("USER_GET", user_id=2)
    cycle.submit("USER_GET", user_id=1)

    def listed(**data: object) -> list[tuple[str, str]]:
        found = cycle.do("INSTRUCTION_LIST", **data)["instructions"]
        return [
            (item["type"], item["state"]) for item in found if item["type"] != "INSTRUCTION_LIST"
        ]

    assert listed() == [
        ("USER_GET", "submitted"),
        ("USER_GET", "final"),
        ("USER_CREATE", "final"),
        ("USER_CREATE", "final"),
    ]
    assert listed(state="submitted") == [("USER_GET", "submitted")]
    assert listed(type="USER_CREATE") == [("USER_CREATE", "final")] * 2
    assert listed(user_id=2) == [("USER_GET", "final"), ("USER_CREATE", "final")]
    assert listed(type="NO_SUCH_TYPE") == []


# --- usage --------------------------------------------------------------------------------------


@pytest.fixture
def used(scene: Scene) -> Scene:
    """Two answers and a failure of Ada's, and one answer of Bob's by another LLM."""
    cycle = scene.cycle
    price = {"prompt": 1_000_000, "completion": 1_000_000}
    cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"price": price})
    for word in ("one", "two"):
        scene.ask(word)
    scene.provider.script(scripts.error(500))
    scene.ask_in_vain("three")
    bob = cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    other = cycle.do("LLM_ADD", provider_id=scene.provider_id, llm_name="other")["llm"]
    cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, add_users=[bob])
    scene.provider.script(scripts.answer("free", usage=False))
    scene.ask("four", user_id=bob, llm_id=other["llm_id"])
    return scene


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def test_usage_is_by_user_llm_and_day(used: Scene) -> None:
    usage = used.cycle.do("USAGE_LIST")["usage"]

    # "one" and "You said: one"; then those and "two", "You said: two".
    assert usage == [
        {
            "day": today(),
            "user_id": 1,
            "llm_id": 1,
            "llm_name": "echo",
            "turns": 2,
            "attempts": 3,
            "prompt_tokens": 1 + 5,
            "completion_tokens": 3 + 3,
            "total_tokens": 12,
            "estimated_tokens": 0,
            "cost": 12.0,
        },
        {
            "day": today(),
            "user_id": 2,
            "llm_id": 2,
            "llm_name": "other",
            "turns": 1,
            "attempts": 1,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "estimated_tokens": 0,
            "cost": None,
        },
    ]


def test_usage_can_be_narrowed(used: Scene) -> None:
    def users(**data: object) -> list[int]:
        return [line["user_id"] for line in used.cycle.do("USAGE_LIST", **data)["usage"]]

    now = datetime.now(UTC)
    before, after = (now - timedelta(hours=1)).isoformat(), (now + timedelta(hours=1)).isoformat()
    assert users(user_id=2) == [2]
    assert users(llm_id=1) == [1]
    assert users(**{"from": before, "to": after}) == [1, 2]
    assert users(**{"from": after}) == []
    assert users(to=before) == []


def test_usage_outlives_the_chat_and_the_llm_and_the_user(used: Scene) -> None:
    cycle = used.cycle
    cycle.do("CHAT_DELETE", chat_id=used.chat_id)
    cycle.do("LLM_PROVIDER_DELETE", provider_id=used.provider_id, force=True)
    cycle.do("USER_DELETE", user_id=used.user_id)

    usage = cycle.do("USAGE_LIST")["usage"]

    assert sorted((line["llm_name"], line["turns"]) for line in usage) == [
        ("echo", 2),
        ("other", 1),
    ]


def test_days_and_moments_are_those_of_utc(used: Scene) -> None:
    cycle = used.cycle
    name = cycle.database.engine.url.database
    cycle.sql(f"ALTER DATABASE \"{name}\" SET timezone TO 'Pacific/Kiritimati'")
    cycle.database.dispose()
    noon = "2024-05-05 00:30:00+00"
    cycle.sql("UPDATE attempts SET started_at = CAST(:noon AS timestamptz)", noon=noon)

    def days(**data: str) -> set[date]:
        usage = cycle.do("USAGE_LIST", **data)["usage"]
        return {date.fromisoformat(line["day"]) for line in usage}

    assert days() == {date(2024, 5, 5)}
    assert days(**{"from": "2024-05-05T00:00:00", "to": "2024-05-05T01:00:00"}) == days()
    assert days(**{"from": "2024-05-05T01:00:00"}) == set()
