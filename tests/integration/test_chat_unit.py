"""The Chat Manage Unit: chats and their members. What is said in them is in test_chat_tree.py."""

from __future__ import annotations

import pytest

from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle


@pytest.fixture
def people(cycle: Cycle) -> list[int]:
    """Ada, Bob and Cleo."""
    return [
        cycle.do("USER_CREATE", username=name)["user"]["user_id"] for name in ("ada", "bob", "cleo")
    ]


@pytest.fixture
def chat_id(cycle: Cycle, people: list[int]) -> int:
    """A chat of Ada and Bob."""
    chat = cycle.do("CHAT_CREATE", title="Engines", user_ids=people[:2])["chat"]
    chat_id: int = chat["chat_id"]
    return chat_id


def members(cycle: Cycle, chat_id: int) -> list[str]:
    chat = cycle.do("CHAT_LOAD", chat_id=chat_id)["chat"]
    return [user["username"] for user in chat["users"]]


def test_a_chat_is_made_with_its_members(cycle: Cycle, people: list[int]) -> None:
    chat = cycle.do("CHAT_CREATE", title="Sample Chat", usernames=["ada"])["chat"]

    assert chat.pop("created_at") == chat.pop("updated_at")
    assert chat == {
        "chat_id": 1,
        "title": "Sample Chat",
        "system_prompt": None,
        "turn_policy": "enqueue",
        "active_message_id": None,
        "users": [{"user_id": people[0], "username": "ada", "display_name": None}],
    }


def test_members_may_be_named_by_name_and_by_id_and_twice(cycle: Cycle, people: list[int]) -> None:
    chat = cycle.do(
        "CHAT_CREATE",
        title="All",
        usernames=["cleo", "ada", "ada"],
        user_ids=[people[1], people[0]],
        system_prompt="Be brief.",
        turn_policy="enqueue",
    )["chat"]

    assert [user["username"] for user in chat["users"]] == ["ada", "bob", "cleo"]
    assert chat["system_prompt"] == "Be brief."


@pytest.mark.parametrize(
    ("data", "field", "missing"),
    [
        ({"usernames": ["ada", "eve", "mallory"]}, "usernames", ["eve", "mallory"]),
        ({"user_ids": [1, 77, 78]}, "user_ids", [77, 78]),
    ],
)
def test_a_chat_with_somebody_who_is_not_there_is_not_made(
    cycle: Cycle, people: list[int], data: dict[str, object], field: str, missing: list[object]
) -> None:
    failed = cycle.fail("CHAT_CREATE", title="Ghosts", **data)

    assert failed.code == "not_found"
    assert failed.details == {"field": field, "missing": missing}
    assert cycle.count("chats") == 0


@pytest.mark.parametrize("policy", ["enqueue", "reject", "interrupt", "rollback"])
def test_a_chat_keeps_its_turn_policy(cycle: Cycle, people: list[int], policy: str) -> None:
    made = cycle.do("CHAT_CREATE", title="T", user_ids=people, turn_policy=policy)["chat"]
    assert made["turn_policy"] == policy

    other = "reject" if policy == "enqueue" else "enqueue"
    changed = cycle.do("CHAT_UPDATE", chat_id=made["chat_id"], turn_policy=other)["chat"]
    assert changed["turn_policy"] == other


def test_a_chat_without_a_turn_policy_shows_the_settings(
    cycle: Cycle, people: list[int], configure: Configure
) -> None:
    configure(turn_policy="reject")

    made = cycle.do("CHAT_CREATE", title="T", user_ids=people)["chat"]

    assert made["turn_policy"] == "reject"


def test_an_update_changes_what_it_names_and_nothing_else(cycle: Cycle, chat_id: int) -> None:
    before = cycle.do("CHAT_LOAD", chat_id=chat_id)["chat"]

    chat = cycle.do("CHAT_UPDATE", chat_id=chat_id, system_prompt="Be brief.")["chat"]

    assert chat.pop("updated_at") > before.pop("updated_at")
    del before["messages"]
    assert chat == before | {"system_prompt": "Be brief."}


def test_members_come_and_go(cycle: Cycle, chat_id: int, people: list[int]) -> None:
    chat = cycle.do(
        "CHAT_UPDATE", chat_id=chat_id, add_users=["cleo", people[0]], remove_users=[people[1]]
    )["chat"]

    assert [user["username"] for user in chat["users"]] == ["ada", "cleo"]
    assert members(cycle, chat_id) == ["ada", "cleo"]


def test_adding_a_member_again_changes_nothing(cycle: Cycle, chat_id: int) -> None:
    cycle.do("CHAT_UPDATE", chat_id=chat_id, add_users=["ada", "ada"])

    assert members(cycle, chat_id) == ["ada", "bob"]


@pytest.mark.parametrize("field", ["add_users", "remove_users"])
def test_a_name_of_nobody_changes_no_member(cycle: Cycle, chat_id: int, field: str) -> None:
    failed = cycle.fail("CHAT_UPDATE", chat_id=chat_id, title="New", **{field: ["ada", "eve"]})

    assert failed.details == {"field": field, "missing": ["eve"]}
    assert cycle.do("CHAT_LOAD", chat_id=chat_id)["chat"]["title"] == "Engines"


def test_the_last_member_cannot_be_removed(cycle: Cycle, chat_id: int) -> None:
    failed = cycle.fail("CHAT_UPDATE", chat_id=chat_id, remove_users=["ada", "bob"])

    assert failed.code == "conflict"
    assert members(cycle, chat_id) == ["ada", "bob"]


def test_a_deleted_chat_is_gone_with_its_members(cycle: Cycle, chat_id: int) -> None:
    assert cycle.do("CHAT_DELETE", chat_id=chat_id) == {}

    assert cycle.fail("CHAT_LOAD", chat_id=chat_id).code == "not_found"
    assert cycle.count("chat_members") == 0
    assert cycle.count("users") == 3


@pytest.mark.parametrize("name", ["CHAT_UPDATE", "CHAT_DELETE", "CHAT_LOAD", "CHAT_EXPORT"])
def test_a_chat_that_is_not_there_is_not_found(cycle: Cycle, name: str) -> None:
    failed = cycle.fail(name, chat_id=77)

    assert (failed.code, failed.stage) == ("not_found", "execute")
    assert failed.details == {"field": "chat_id", "value": 77}


def test_chats_are_listed_for_all_and_for_one(
    cycle: Cycle, chat_id: int, people: list[int]
) -> None:
    cycle.do("CHAT_CREATE", title="Cleo's", user_ids=people[2:])

    def titles(name: str, **data: object) -> list[str]:
        return [chat["title"] for chat in cycle.do(name, **data)["chats"]]

    assert titles("CHAT_LIST") == ["Engines", "Cleo's"]
    assert titles("CHAT_LIST_BY_USER", user_id=people[0]) == ["Engines"]
    assert titles("CHAT_LIST_BY_USER", user_id=people[2]) == ["Cleo's"]


def test_a_listed_chat_has_its_members(cycle: Cycle, chat_id: int) -> None:
    (chat,) = cycle.do("CHAT_LIST")["chats"]

    assert [user["username"] for user in chat["users"]] == ["ada", "bob"]


def test_an_empty_chat_can_be_loaded_and_exported(cycle: Cycle, chat_id: int) -> None:
    for name in ("CHAT_LOAD", "CHAT_EXPORT"):
        result = cycle.do(name, chat_id=chat_id)
        assert result["chat"]["messages"] == []
        assert result["next"] is None


def test_an_active_message_must_be_of_the_chat(cycle: Cycle, chat_id: int) -> None:
    failed = cycle.fail("CHAT_UPDATE", chat_id=chat_id, active_message_id=77)

    assert failed.code == "not_found"
    assert failed.details == {"field": "active_message_id", "value": 77}
