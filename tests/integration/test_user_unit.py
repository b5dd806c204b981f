"""The User Manage Unit, instruction by instruction."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.fixtures.cycles import Cycle


@pytest.fixture
def ada(cycle: Cycle) -> int:
    user_id: int = cycle.do("USER_CREATE", username="ada", profile="counts")["user"]["user_id"]
    return user_id


def test_the_first_user_is_number_one(cycle: Cycle) -> None:
    user = cycle.do("USER_CREATE", username="john_doe", profile="Sample profile")["user"]

    created = datetime.fromisoformat(user.pop("created_at"))
    assert created.tzinfo == UTC
    assert datetime.fromisoformat(user.pop("updated_at")) == created
    assert user == {
        "user_id": 1,
        "username": "john_doe",
        "display_name": None,
        "profile": "Sample profile",
        "instruction_recording": False,
    }


def test_an_envelope_says_what_was_done_and_for_which_id(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    cycle.finish(instruction_id)

    envelope = cycle.envelope(instruction_id)

    assert envelope["status"] == "success"
    assert envelope["message"] == "User created."
    assert envelope["instruction_id"] == str(instruction_id)
    assert set(envelope) == {"status", "message", "data", "instruction_id"}


@pytest.mark.parametrize(
    "name", ["ada", "ADA", "Ädä", "نادية", "👩‍💻", "a'; DROP TABLE users; --", "%s"]
)
def test_a_name_is_kept_as_it_was_written(cycle: Cycle, name: str) -> None:
    user = cycle.do("USER_CREATE", username=name, profile=name, display_name=name)["user"]

    assert cycle.do("USER_GET", username=name)["user"] == user
    assert (user["username"], user["profile"], user["display_name"]) == (name, name, name)


def test_two_users_of_one_name_are_a_conflict(cycle: Cycle, ada: int) -> None:
    failed = cycle.fail("USER_CREATE", username="ada")

    assert (failed.code, failed.stage) == ("conflict", "execute")
    assert failed.details == {"field": "username"}
    assert cycle.count("users") == 1


def test_names_differ_by_case(cycle: Cycle, ada: int) -> None:
    assert cycle.do("USER_CREATE", username="Ada")["user"]["user_id"] != ada


def test_an_update_changes_what_it_names_and_nothing_else(cycle: Cycle, ada: int) -> None:
    before = cycle.do("USER_GET", user_id=ada)["user"]

    user = cycle.do("USER_UPDATE", user_id=ada, display_name="Ada L.")["user"]

    assert user["updated_at"] > before["updated_at"]
    assert user == before | {"display_name": "Ada L.", "updated_at": user["updated_at"]}
    assert cycle.do("USER_GET", user_id=ada)["user"] == user


def test_an_update_to_a_name_that_is_taken_is_a_conflict(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_CREATE", username="bob")

    failed = cycle.fail("USER_UPDATE", user_id=ada, username="bob", profile="stays")

    assert failed.code == "conflict"
    assert cycle.do("USER_GET", user_id=ada)["user"]["profile"] == "counts"


def test_a_user_is_found_by_id_and_by_name(cycle: Cycle, ada: int) -> None:
    by_id = cycle.do("USER_GET", user_id=ada)

    assert by_id == cycle.do("USER_GET", username="ada")
    assert by_id["user"]["username"] == "ada"


def test_users_are_listed_in_order(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_CREATE", username="bob")

    listed = cycle.do("USER_LIST")

    assert [user["username"] for user in listed["users"]] == ["ada", "bob"]
    assert listed["next"] is None


def test_there_may_be_no_users(cycle: Cycle) -> None:
    assert cycle.do("USER_LIST") == {"users": [], "next": None}


@pytest.mark.parametrize(
    "name",
    [
        "USER_UPDATE",
        "USER_DELETE",
        "USER_GET",
        "USER_INSTRUCTION_RECORDING_ENABLE",
        "USER_INSTRUCTION_RECORDING_DISABLE",
        "USER_INSTRUCTION_RECORDS_DELETE",
        "USER_INSTRUCTION_RECORDING_LIST",
        "CHAT_LIST_BY_USER",
        "USER_EXPORT",
        "USER_ERASE",
    ],
)
def test_a_user_that_is_not_there_is_not_found(cycle: Cycle, name: str) -> None:
    failed = cycle.fail(name, user_id=77)

    assert (failed.code, failed.stage) == ("not_found", "execute")
    assert failed.details == {"field": "user_id", "value": 77}


def test_a_name_of_nobody_is_not_found(cycle: Cycle, ada: int) -> None:
    failed = cycle.fail("USER_GET", username="bob")

    assert (failed.code, failed.stage) == ("not_found", "decode")
    assert failed.details["field"] == "username"


# --- deleting -----------------------------------------------------------------------------------


def test_a_deleted_user_takes_its_own_chats_along(cycle: Cycle, ada: int) -> None:
    cycle.do("CHAT_CREATE", title="Alone", user_ids=[ada])

    assert cycle.do("USER_DELETE", user_id=ada) == {}

    assert cycle.do("CHAT_LIST")["chats"] == []
    assert cycle.fail("USER_GET", user_id=ada).code == "not_found"


def test_a_deleted_user_leaves_other_members_their_chat(cycle: Cycle, ada: int) -> None:
    bob = cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    cycle.do("CHAT_CREATE", title="Together", user_ids=[ada, bob])

    cycle.do("USER_DELETE", user_id=ada)

    (chat,) = cycle.do("CHAT_LIST_BY_USER", user_id=bob)["chats"]
    assert [user["user_id"] for user in chat["users"]] == [bob]


def test_a_deleted_users_name_is_free_again_and_its_id_is_not(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_DELETE", user_id=ada)

    assert cycle.do("USER_CREATE", username="ada")["user"]["user_id"] > ada


def test_a_deleted_user_leaves_no_member_no_record_and_no_message_behind(
    cycle: Cycle, ada: int
) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)
    cycle.do("CHAT_CREATE", title="Alone", user_ids=[ada])

    cycle.do("USER_DELETE", user_id=ada)

    for table in ("users", "chats", "chat_members", "messages", "records"):
        assert cycle.count(table) == 0, table


# --- records ------------------------------------------------------------------------------------


def types(cycle: Cycle, user_id: int, name: str = "USER_INSTRUCTION_RECORDING_LIST") -> list[str]:
    return [record["type"] for record in cycle.do(name, user_id=user_id)["records"]]


def test_nothing_is_recorded_unless_it_was_asked_for(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_UPDATE", user_id=ada, profile="counts more")

    assert types(cycle, ada) == []


def test_while_recording_every_instruction_of_the_user_leaves_a_record(
    cycle: Cycle, ada: int
) -> None:
    assert cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)["user"][
        "instruction_recording"
    ]
    cycle.do("USER_UPDATE", user_id=ada, profile="counts more")
    chat = cycle.do("CHAT_CREATE", title="Engines", usernames=["ada"])["chat"]
    cycle.do("USER_LIST")

    assert types(cycle, ada) == ["USER_INSTRUCTION_RECORDING_ENABLE", "USER_UPDATE", "CHAT_CREATE"]
    bob = cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    cycle.do("CHAT_UPDATE", chat_id=chat["chat_id"], add_users=[bob], remove_users=["ada"])
    assert types(cycle, ada)[-1] == "CHAT_UPDATE"
    assert types(cycle, bob) == []


def test_a_record_says_which_how_and_when(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)
    instruction_id = cycle.submit("CHAT_CREATE", title="Engines", user_ids=[ada])
    cycle.finish(instruction_id)

    record = cycle.do("USER_INSTRUCTION_RECORDING_LIST", user_id=ada)["records"][1]

    row = cycle.row(instruction_id)
    assert record.pop("record_id") > 0
    assert datetime.fromisoformat(record.pop("submitted_at")) == row.submitted_at
    assert datetime.fromisoformat(record.pop("finished_at")) == row.final_at
    assert record == {
        "user_id": ada,
        "instruction_id": str(instruction_id),
        "type": "CHAT_CREATE",
        "chat_id": None,
        "outcome": "success",
    }


def test_a_failure_is_recorded_by_its_code(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)
    cycle.fail("CHAT_CREATE", title="Engines", user_ids=[ada, 77])

    record = cycle.do("USER_INSTRUCTION_RECORDING_LIST", user_id=ada)["records"][1]

    assert record["outcome"] == "not_found"


def test_a_record_has_no_text_in_it(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)
    cycle.do("USER_UPDATE", user_id=ada, profile="a secret profile")
    cycle.do("CHAT_CREATE", title="a secret title", user_ids=[ada])

    records = cycle.sql("SELECT CAST(records.* AS text) FROM records")

    assert len(records) == 3
    assert "secret" not in str(records)


def test_after_disabling_nothing_more_is_recorded(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)
    cycle.do("USER_INSTRUCTION_RECORDING_DISABLE", user_id=ada)
    cycle.do("USER_UPDATE", user_id=ada, profile="counts more")

    assert types(cycle, ada) == ["USER_INSTRUCTION_RECORDING_ENABLE"]


def test_records_can_be_listed_by_another_name(cycle: Cycle, ada: int) -> None:
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=ada)

    assert types(cycle, ada, "USER_INSTRUCTION_RECORDS_LIST") == [
        "USER_INSTRUCTION_RECORDING_ENABLE"
    ]


def test_deleted_records_are_counted(cycle: Cycle, ada: int) -> None:
    bob = cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    for user_id in (ada, bob):
        cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=user_id)
    cycle.do("USER_INSTRUCTION_RECORDING_DISABLE", user_id=ada)

    assert cycle.do("USER_INSTRUCTION_RECORDS_DELETE", user_id=ada) == {"deleted": 1}
    assert types(cycle, ada) == []
    assert types(cycle, bob) == ["USER_INSTRUCTION_RECORDING_ENABLE"]
