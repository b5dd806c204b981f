"""Everything that is kept of a user: out (USER_EXPORT) and away (USER_ERASE).

After an erasure the whole database is searched, every row of every table as text.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.servers import scripts

#: In everything that Ada writes, and in nothing else.
MARK = "xyzzy"


@pytest.fixture
def eve(cycle: Cycle) -> int:
    """A user all of whose texts are marked."""
    user = cycle.do("USER_CREATE", username=f"{MARK} name", profile=MARK, display_name=MARK)
    user_id: int = user["user"]["user_id"]
    return user_id


@pytest.fixture
def bob(cycle: Cycle) -> int:
    user_id: int = cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    return user_id


def own_chat(cycle: Cycle, *user_ids: int, title: str = MARK) -> int:
    chat = cycle.do("CHAT_CREATE", title=title, user_ids=list(user_ids), system_prompt=title)
    chat_id: int = chat["chat"]["chat_id"]
    return chat_id


def talk(scene: Scene, user_id: int, chat_id: int, text: str = MARK) -> dict[str, Any]:
    return scene.ask(f"{text} question", user_id=user_id, chat_id=chat_id)


def left(cycle: Cycle) -> list[str]:
    """The rows in which something of the user's is left."""
    return [row for row in cycle.everything().split("\n") if MARK in row]


def erase(cycle: Cycle, user_id: int) -> dict[str, int]:
    erased: dict[str, int] = cycle.do("USER_ERASE", user_id=user_id)["erased"]
    return erased


# --- erasing ------------------------------------------------------------------------------------


def test_nothing_is_left_of_an_erased_user_and_its_own_chats(scene: Scene, eve: int) -> None:
    cycle = scene.cycle
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=eve)
    cycle.do("USER_UPDATE", user_id=eve, profile=f"{MARK} two")
    chat_id = own_chat(cycle, eve)
    cycle.do("CHAT_UPDATE", chat_id=chat_id, title=f"{MARK} two", add_users=[f"{MARK} name"])
    call = {"id": MARK, "type": "function", "function": {"name": MARK, "arguments": f'"{MARK}"'}}
    scene.provider.script(scripts.answer(MARK, reasoning_content=MARK, tool_calls=[call]))
    answer = talk(scene, eve, chat_id)
    cycle.do("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])
    for name, data in (
        ("CHAT_LOAD", {"chat_id": chat_id, "branch": "all"}),
        ("CHAT_EXPORT", {"chat_id": chat_id}),
        ("CHAT_SEARCH", {"user_id": eve, "query": MARK}),
        ("CHAT_LIST", {}),
        ("CHAT_LIST_BY_USER", {"user_id": eve}),
        ("USER_GET", {"username": f"{MARK} name"}),
        ("USER_LIST", {}),
        ("USER_EXPORT", {"user_id": eve}),
        ("USER_INSTRUCTION_RECORDING_LIST", {"user_id": eve}),
        ("INSTRUCTION_LIST", {"user_id": eve}),
    ):
        cycle.do(name, **data)
    assert len(left(cycle)) > 10

    counts = erase(cycle, eve)

    assert left(cycle) == []
    assert (counts["users"], counts["chats"]) == (1, 1)
    assert counts["records"] > 5
    assert counts["instructions"] > 10


def test_in_a_shared_chat_an_empty_marked_message_keeps_its_place(
    scene: Scene, eve: int, bob: int
) -> None:
    cycle = scene.cycle
    chat_id = own_chat(cycle, eve, bob, title="Shared")
    talk(scene, bob, chat_id, "one")
    talk(scene, eve, chat_id)
    talk(scene, bob, chat_id, "three")

    counts = erase(cycle, eve)

    messages = cycle.do("CHAT_LOAD", chat_id=chat_id)["chat"]["messages"]
    assert [(m["content"], m.get("erased", False)) for m in messages] == [
        ("one question", False),
        ("You said: one question", False),
        ("", True),
        ("", True),
        ("three question", False),
        ("You said: three question", False),
    ]
    assert counts["messages"] == 2
    assert left(cycle) == []


def test_what_was_erased_is_not_sent_to_a_provider_again(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve, bob, title="Shared")
    first = talk(scene, eve, chat_id)
    erase(scene.cycle, eve)

    talk(scene, bob, chat_id, "two")

    assert [m["content"] for m in scene.provider.calls[-1].body["messages"]] == [
        "Shared",
        "two question",
    ]
    again = scene.cycle.fail("LLM_RESPONSE_REGENERATE", message_id=first["message_id"])
    assert again.code == "not_found"


def test_what_others_wrote_is_left(scene: Scene, eve: int, bob: int) -> None:
    cycle = scene.cycle
    cycle.do("USER_UPDATE", user_id=bob, profile="bob's profile")
    chat_id = own_chat(cycle, bob, title="bob's chat")
    talk(scene, bob, chat_id, "bob's")

    erase(cycle, eve)

    assert cycle.do("USER_GET", user_id=bob)["user"]["profile"] == "bob's profile"
    messages = cycle.do("CHAT_LOAD", chat_id=chat_id)["chat"]["messages"]
    assert messages[0]["content"] == "bob's question"


def test_the_ledger_keeps_its_lines_without_the_user(scene: Scene, eve: int) -> None:
    talk(scene, eve, own_chat(scene.cycle, eve))

    erase(scene.cycle, eve)

    (line,) = scene.cycle.do("USAGE_LIST")["usage"]
    assert (line["user_id"], line["turns"]) == (None, 1)


def test_an_erased_user_can_be_erased_no_second_time(cycle: Cycle, eve: int) -> None:
    erase(cycle, eve)

    assert cycle.fail("USER_ERASE", user_id=eve).code == "not_found"


def test_an_erased_users_results_say_nothing_any_more(cycle: Cycle, eve: int) -> None:
    instruction_id = cycle.submit("USER_GET", user_id=eve)
    cycle.finish(instruction_id)

    erase(cycle, eve)

    row = cycle.row(instruction_id)
    assert row.outcome is not None
    assert (row.data, row.outcome["data"]) == ({}, {})
    assert row.outcome["status"] == "success"


# Each of these leaves a text of the user's somewhere that is easily overlooked.


def refused_update(scene: Scene, eve: int, bob: int) -> None:
    scene.cycle.fail("USER_UPDATE", user_id=eve, profile=MARK, colour=MARK)


def refused_creation(scene: Scene, eve: int, bob: int) -> None:
    scene.cycle.fail("USER_CREATE", username=f"{MARK} name", profile=MARK)


def name_before_there_was_a_user(scene: Scene, eve: int, bob: int) -> None:
    scene.cycle.do("USER_UPDATE", user_id=eve, username=f"{MARK} other")
    scene.cycle.fail("USER_GET", username=f"{MARK} name")
    scene.cycle.fail("CHAT_CREATE", title="Ghosts", usernames=[f"{MARK} name"])


def refused_generation(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve)
    data = {"user_id": eve, "chat_id": chat_id, "user_input": MARK, "llm_id": 77}
    scene.cycle.fail("LLM_RESPONSE_GENERATE", **data)


def generation_in_a_chat_of_others(scene: Scene, eve: int, bob: int) -> None:
    data = {"user_id": eve, "chat_id": scene.chat_id, "user_input": MARK, "llm_id": 77}
    scene.cycle.fail("LLM_RESPONSE_GENERATE", **data)


def prompt_quoted_by_a_provider(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve)
    scene.provider.script(scripts.error(400, f"I won't answer {MARK}"))
    data = {"user_id": eve, "chat_id": chat_id, "user_input": MARK, "llm_id": scene.llm_id}
    scene.cycle.fail("LLM_RESPONSE_GENERATE", **data)


def chat_deleted_before(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve)
    answer = talk(scene, eve, chat_id)
    scene.cycle.do("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])
    scene.cycle.do("CHAT_LOAD", chat_id=chat_id)
    scene.cycle.do("CHAT_EXPORT", chat_id=chat_id)
    scene.cycle.do("CHAT_UPDATE", chat_id=chat_id, title=f"{MARK} two")
    scene.cycle.do("CHAT_DELETE", chat_id=chat_id)


def chat_left_before(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve, bob, title="Shared")
    talk(scene, eve, chat_id)
    scene.cycle.do("CHAT_LOAD", chat_id=chat_id)
    scene.cycle.do("CHAT_UPDATE", chat_id=chat_id, title="Still shared")
    scene.cycle.do("CHAT_UPDATE", chat_id=chat_id, remove_users=[eve])


def withdrawn_submission(scene: Scene, eve: int, bob: int) -> None:
    instruction_id = scene.cycle.submit("USER_UPDATE", user_id=eve, profile=MARK)
    scene.cycle.sql(
        "UPDATE instructions SET state = 'withdrawn', final_at = now() WHERE id = :id",
        id=instruction_id,
    )


def result_not_stored_yet(scene: Scene, eve: int, bob: int) -> None:
    scene.cycle.execute(scene.cycle.decoded("USER_GET", user_id=eve))


def turn_that_waits(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve, bob, title="Shared")
    data = {"chat_id": chat_id, "llm_id": scene.llm_id}
    scene.cycle.decoded("LLM_RESPONSE_GENERATE", user_id=bob, user_input="one", **data)
    waiting = scene.cycle.decoded("LLM_RESPONSE_GENERATE", user_id=eve, user_input=MARK, **data)
    assert not scene.cycle.execute(waiting)


def submission_not_decoded_yet(scene: Scene, eve: int, bob: int) -> None:
    scene.cycle.submit("USER_UPDATE", user_id=eve, profile=MARK)


@pytest.mark.parametrize(
    "leave",
    [
        refused_update,
        refused_creation,
        name_before_there_was_a_user,
        refused_generation,
        generation_in_a_chat_of_others,
        prompt_quoted_by_a_provider,
        chat_deleted_before,
        chat_left_before,
        withdrawn_submission,
        result_not_stored_yet,
        turn_that_waits,
        submission_not_decoded_yet,
    ],
)
def test_nothing_is_overlooked(scene: Scene, eve: int, bob: int, leave: Any) -> None:
    leave(scene, eve, bob)
    assert left(scene.cycle)

    erase(scene.cycle, eve)
    # What was open goes its way, and may not bring anything back.
    for (instruction_id,) in scene.cycle.sql("SELECT id FROM instructions WHERE final_at IS NULL"):
        scene.cycle.finish(instruction_id)
    scene.cycle.deliver()

    assert left(scene.cycle) == []


# --- exporting ----------------------------------------------------------------------------------


def test_an_export_has_everything_that_is_kept(scene: Scene, eve: int) -> None:
    cycle = scene.cycle
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=eve)
    chat_id = own_chat(cycle, eve)
    talk(scene, eve, chat_id)

    exported = cycle.do("USER_EXPORT", user_id=eve)

    assert exported["user"]["username"] == f"{MARK} name"
    assert [chat["title"] for chat in exported["chats"]] == [MARK]
    assert [m["role"] for m in exported["messages"]] == ["user", "assistant"]
    types = [record["type"] for record in exported["records"]]
    assert types == [
        "USER_INSTRUCTION_RECORDING_ENABLE",
        "CHAT_CREATE",
        "LLM_RESPONSE_GENERATE",
    ]
    assert [i["type"] for i in exported["instructions"]][:2] == ["USER_CREATE", types[0]]
    assert [a["status"] for a in exported["attempts"]] == ["answered"]
    assert exported["next"] is None


def test_an_export_has_nothing_of_others(scene: Scene, eve: int, bob: int) -> None:
    chat_id = own_chat(scene.cycle, eve, bob, title="Shared")
    talk(scene, eve, chat_id)

    exported = scene.cycle.do("USER_EXPORT", user_id=bob)

    assert [chat["title"] for chat in exported["chats"]] == ["Shared"]
    assert exported["messages"] == []
    assert exported["attempts"] == []
    types = {item["type"] for item in exported["instructions"]}
    assert types <= {"USER_CREATE", "CHAT_CREATE", "USER_EXPORT"}
