"""What is said in a chat: a tree of questions and answers, and the branch that is active."""

from __future__ import annotations

import pytest

from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.servers import scripts


def regenerate(scene: Scene, message_id: int, text: str) -> int:
    """A new answer with that text; its id."""
    scene.provider.script(scripts.answer(text))
    answer = scene.cycle.do("LLM_RESPONSE_REGENERATE", message_id=message_id)["llm_response"]
    return int(answer["message_id"])


def test_a_turn_adds_question_and_answer(scene: Scene) -> None:
    answer = scene.ask("Hello")

    question, stored = scene.messages()
    assert question["role"], question["content"] == ("user", "Hello")
    assert (question["parent_message_id"], question["user_id"]) == (None, scene.user_id)
    assert answer["parent_message_id"] == question["message_id"]
    assert stored == answer | {"active": True}


def test_a_chat_shows_its_turns_oldest_first(scene: Scene) -> None:
    for word in ("one", "two"):
        scene.ask(word)

    assert scene.said() == ["one", "You said: one", "two", "You said: two"]


def test_the_next_turn_sends_the_active_branch(scene: Scene) -> None:
    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, system_prompt="Be brief.")
    scene.ask("one")
    scene.ask("two")

    sent = [(item["role"], item["content"]) for item in scene.provider.calls[1].body["messages"]]
    assert sent == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "You said: one"),
        ("user", "two"),
    ]


# --- regenerating -------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["question", "answer"])
def test_regenerating_adds_a_sibling_answer_and_makes_it_active(scene: Scene, of: str) -> None:
    first = scene.ask("Hello")
    message_id = first["message_id"] if of == "answer" else first["parent_message_id"]

    second = regenerate(scene, message_id, "better")

    assert scene.said() == ["Hello", "better"]
    assert scene.said(branch="all") == ["Hello", "You said: Hello", "better"]
    assert scene.messages()[-1]["message_id"] == second
    assert scene.messages()[-1]["parent_message_id"] == first["parent_message_id"]


def test_regenerating_sends_what_was_said_before_the_question_and_not_the_old_answer(
    scene: Scene,
) -> None:
    scene.ask("one")
    answer = scene.ask("two")
    scene.ask("three")

    regenerate(scene, answer["message_id"], "better")

    sent = [item["content"] for item in scene.provider.calls[-1].body["messages"]]
    assert sent == ["one", "You said: one", "two"]
    assert scene.said() == ["one", "You said: one", "two", "better"]


def test_regenerating_asks_the_llm_that_answered_before(scene: Scene) -> None:
    other = scene.cycle.do("LLM_ADD", provider_id=scene.provider_id, llm_name="other")["llm"]
    answer = scene.ask("Hello", llm_id=other["llm_id"])

    scene.cycle.do("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])
    scene.cycle.do("LLM_RESPONSE_REGENERATE", message_id=answer["parent_message_id"])
    scene.cycle.do(
        "LLM_RESPONSE_REGENERATE",
        message_id=answer["message_id"],
        llm_id=scene.llm_id,
        parameters={"temperature": 2},
    )

    models = [call.body["model"] for call in scene.provider.calls]
    assert models == ["other", "other", "other", "echo"]
    assert scene.provider.calls[-1].body["temperature"] == 2


def test_regenerating_needs_an_llm_once_the_one_before_is_gone(scene: Scene) -> None:
    answer = scene.ask("Hello")
    scene.cycle.do("LLM_DELETE", llm_id=scene.llm_id)

    failed = scene.cycle.fail("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])

    assert (failed.code, failed.fields) == ("invalid_data", ["llm_id"])
    assert len(scene.provider.calls) == 1


def test_a_deleted_llm_leaves_its_name_on_its_answers(scene: Scene) -> None:
    scene.ask("Hello")
    scene.cycle.do("LLM_PROVIDER_DELETE", provider_id=scene.provider_id, force=True)

    answer = scene.messages()[1]

    assert (answer["llm_id"], answer["llm_name"]) == (None, "echo")


def test_only_a_member_regenerates_in_its_own_name(scene: Scene) -> None:
    answer = scene.ask("Hello")
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]

    failed = scene.cycle.fail(
        "LLM_RESPONSE_REGENERATE", message_id=answer["message_id"], user_id=bob
    )

    assert failed.code == "not_a_member"
    assert len(scene.provider.calls) == 1


def test_a_message_that_is_not_there_cannot_be_answered_again(cycle: Cycle) -> None:
    failed = cycle.fail("LLM_RESPONSE_REGENERATE", message_id=77)

    assert (failed.code, failed.stage) == ("not_found", "decode")
    assert failed.details == {"field": "message_id", "value": 77}


# --- branching ----------------------------------------------------------------------------------


def test_a_question_is_edited_by_asking_beside_it(scene: Scene) -> None:
    first = scene.ask("one")
    scene.ask("two")

    scene.ask("uno", parent_message_id=first["parent_message_id"])

    assert scene.said() == ["uno", "You said: uno"]
    assert scene.messages()[0]["parent_message_id"] is None
    assert [m["content"] for m in scene.provider.calls[-1].body["messages"]] == ["uno"]


def test_a_later_question_is_edited_by_asking_below_the_answer_before_it(scene: Scene) -> None:
    first = scene.ask("one")
    scene.ask("two")

    scene.ask("due", parent_message_id=first["message_id"])

    assert scene.said() == ["one", "You said: one", "due", "You said: due"]
    assert len(scene.messages(branch="all")) == 6


def test_a_turn_goes_on_from_the_branch_that_was_chosen(scene: Scene) -> None:
    first = scene.ask("one")
    scene.ask("uno", parent_message_id=first["parent_message_id"])

    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, active_message_id=first["message_id"])
    scene.ask("two")

    assert scene.said() == ["one", "You said: one", "two", "You said: two"]


def test_a_branch_is_chosen_by_its_question_too_and_then_ends_with_the_newest_answer(
    scene: Scene,
) -> None:
    first = scene.ask("one")
    newest = regenerate(scene, first["message_id"], "better")
    scene.ask("uno", parent_message_id=first["parent_message_id"])

    chat = scene.cycle.do(
        "CHAT_UPDATE", chat_id=scene.chat_id, active_message_id=first["parent_message_id"]
    )["chat"]

    assert chat["active_message_id"] == newest
    assert scene.said() == ["one", "better"]


@pytest.mark.parametrize(
    ("name", "field"),
    [("LLM_RESPONSE_GENERATE", "parent_message_id"), ("CHAT_UPDATE", "active_message_id")],
)
def test_a_message_of_another_chat_is_no_place_to_branch_from(
    scene: Scene, name: str, field: str
) -> None:
    answer = scene.ask("Hello")
    other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]
    data = {"chat_id": other["chat_id"], field: answer["message_id"]}
    if name == "LLM_RESPONSE_GENERATE":
        data = scene.turn | {"user_input": "Hi"} | data

    failed = scene.cycle.fail(name, **data)

    assert failed.code == "not_found"
    assert failed.details == {"field": field, "value": answer["message_id"]}


def test_siblings_show_which_of_them_is_active(scene: Scene) -> None:
    first = scene.ask("one")
    regenerate(scene, first["message_id"], "better")
    scene.ask("two")

    shown = [(m["content"], m["active"]) for m in scene.messages(branch="all")]

    assert shown == [
        ("one", True),
        ("You said: one", False),
        ("better", True),
        ("two", True),
        ("You said: two", True),
    ]


# --- pages --------------------------------------------------------------------------------------


def pages(scene: Scene, limit: int, **more: object) -> list[list[str]]:
    """The chat from its end to its top, page by page."""
    found, before = [], {}
    while True:
        result = scene.cycle.do("CHAT_LOAD", chat_id=scene.chat_id, limit=limit, **before, **more)
        found.append([message["content"] for message in result["chat"]["messages"]])
        if result["next"] is None:
            return found
        before = {"before": result["next"]}


def test_the_newest_messages_come_first_and_the_rest_on_request(scene: Scene) -> None:
    for word in ("1", "2", "3"):
        scene.provider.script(scripts.answer(f"a{word}"))
        scene.ask(f"q{word}")

    assert pages(scene, 4) == [["q2", "a2", "q3", "a3"], ["q1", "a1"]]
    assert pages(scene, 5) == [["a1", "q2", "a2", "q3", "a3"], ["q1"]]
    assert pages(scene, 6) == [["q1", "a1", "q2", "a2", "q3", "a3"]]


def test_all_branches_come_in_pages_too(scene: Scene) -> None:
    scene.provider.script(scripts.answer("a1"))
    first = scene.ask("q1")
    regenerate(scene, first["message_id"], "b1")
    scene.provider.script(scripts.answer("a2"))
    scene.ask("q2")

    assert pages(scene, 2, branch="all") == [["q2", "a2"], ["a1", "b1"], ["q1"]]
    assert pages(scene, 2) == [["q2", "a2"], ["q1", "b1"]]


@pytest.mark.parametrize("branch", ["active", "all"])
def test_what_comes_before_must_be_of_the_chat(scene: Scene, branch: str) -> None:
    answer = scene.ask("Hello")
    other = scene.cycle.do("CHAT_CREATE", title="Other", user_ids=[scene.user_id])["chat"]

    elsewhere = scene.cycle.fail(
        "CHAT_LOAD", chat_id=other["chat_id"], before=answer["message_id"], branch=branch
    )
    nowhere = scene.cycle.fail("CHAT_LOAD", chat_id=scene.chat_id, before=77, branch=branch)

    assert (elsewhere.code, elsewhere.fields) == ("invalid_data", ["before"])
    assert (nowhere.code, nowhere.details["field"]) == ("not_found", "before")


# --- what is gone -------------------------------------------------------------------------------


def test_a_deleted_chat_takes_its_messages_along(scene: Scene) -> None:
    scene.ask("Hello")

    scene.cycle.do("CHAT_DELETE", chat_id=scene.chat_id)

    assert scene.cycle.count("messages") == 0


def test_what_a_deleted_user_said_in_a_shared_chat_stays_without_its_name(scene: Scene) -> None:
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, add_users=[bob])
    scene.ask("Hello")

    scene.cycle.do("USER_DELETE", user_id=scene.user_id)

    told = [(m["content"], m["user_id"], m["former_user_id"]) for m in scene.messages()]
    assert told == [
        ("Hello", None, scene.user_id),
        ("You said: Hello", None, scene.user_id),
    ]
