"""A user is taken out of results, and what is of others stays as it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.units.redaction import Subject, redact, without_name

EVE = Subject(5, frozenset({"eve", "old eve"}), frozenset({70}), frozenset({900}))

#: Results of others: any JSON whose ids are not Eve's.
others = st.recursive(
    st.none() | st.booleans() | st.text(max_size=5) | st.integers(6, 60),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["user_id", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=15,
)


@given(others)
def test_what_is_of_others_stays_as_it_is(value: Any) -> None:
    assert redact(value, EVE) == value


def test_a_user_in_a_list_keeps_its_id_and_loses_its_texts() -> None:
    bob = {"user_id": 6, "username": "bob", "profile": "Bob's"}
    eve = {"user_id": 5, "username": "eve", "profile": "Eve's", "instruction_recording": True}

    assert redact({"users": [bob, eve]}, EVE) == {
        "users": [bob, {"user_id": 5, "instruction_recording": True, "erased": True}]
    }


def test_a_message_keeps_its_place() -> None:
    message = {
        "message_id": 7, "parent_message_id": 6, "user_id": 5, "role": "user", "content": "Eve's",
        "created_at": "2026-01-01",
    }  # fmt: skip

    assert redact([message], EVE) == [message | {"content": "", "erased": True}]


def test_a_message_is_found_after_its_user_was_deleted() -> None:
    said = {"message_id": 7, "user_id": None, "former_user_id": 5, "content": "Eve's"}

    assert redact(said, EVE)["content"] == ""


def test_somebodys_answer_to_her_question_goes_as_well() -> None:
    assert redact({"message_id": 900, "user_id": 6, "content": "You said"}, EVE)["content"] == ""


def test_a_chat_of_hers_alone_goes_and_a_shared_one_stays() -> None:
    alone = {"chat_id": 8, "title": "Eve's", "users": [{"user_id": 5, "username": "eve"}]}
    shared = {"chat_id": 9, "title": "Ours", "users": [{"user_id": 5}, {"user_id": 6}]}

    found = redact({"chats": [alone, shared]}, EVE)["chats"]

    assert found[0] == {"chat_id": 8, "erased": True}
    assert (found[1]["title"], found[1]["users"][1]) == ("Ours", {"user_id": 6})


def test_figures_stay() -> None:
    line = {"day": "2026-01-01", "user_id": 5, "llm_name": "echo", "turns": 3, "cost": 0.5}

    assert redact(line, EVE) == line | {"erased": True}


def test_names_go_from_data_that_names_others_too() -> None:
    data = {"title": "Ours", "usernames": ["eve", "bob"], "username": "old eve"}

    assert without_name(data, EVE) == {"title": "Ours", "usernames": ["bob"], "username": None}
    assert without_name({"usernames": ["bob"]}, EVE) == {"usernames": ["bob"]}


def test_an_instruction_of_hers_in_an_export_goes() -> None:
    view = {"type": "CHAT_CREATE", "data": {"usernames": ["eve"]}, "message": "no user 'eve'"}

    assert redact({"instructions": [view]}, EVE)["instructions"] == [
        {"type": "CHAT_CREATE", "erased": True}
    ]
