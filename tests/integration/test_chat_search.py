"""CHAT_SEARCH: full text, best first, in the user's own chats; and CHAT_EXPORT, whole."""

from __future__ import annotations

import pytest

from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.servers import scripts


@pytest.fixture
def talk(scene: Scene) -> Scene:
    """A chat about engines and tea."""
    for question, answer in (
        ("What is an analytical engine?", "An engine of engines: engine, engine."),
        ("And tea?", "A drink. No engine."),
        ("Schöne Grüße, 世界!", "ça va"),
    ):
        scene.provider.script(scripts.answer(answer))
        scene.ask(question)
    return scene


def found(scene: Scene, query: str, **more: object) -> list[str]:
    data = {"user_id": scene.user_id, "query": query} | more
    return [m["content"] for m in scene.cycle.do("CHAT_SEARCH", **data)["messages"]]


def test_questions_and_answers_are_found_best_first(talk: Scene) -> None:
    assert found(talk, "engine") == [
        "An engine of engines: engine, engine.",
        "A drink. No engine.",
        "What is an analytical engine?",
    ]


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ("ENGINE tea", 0),
        ("analytical engine", 1),
        ("drink -engine", 0),
        ("tea or drink", 2),
        ('"no engine"', 1),
        ("grüße", 1),
        ("nothing", 0),
        ("!!! ???", 0),
        ("':* & | ( <->", 0),
        ("%", 0),
    ],
)
def test_a_query_is_written_as_for_a_search_engine(talk: Scene, query: str, hits: int) -> None:
    assert len(found(talk, query)) == hits


def test_as_many_are_found_as_were_asked_for(talk: Scene) -> None:
    assert found(talk, "engine", limit=1) == ["An engine of engines: engine, engine."]


def test_nothing_is_found_in_chats_of_others(talk: Scene) -> None:
    bob = talk.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]

    assert found(talk, "engine", user_id=bob) == []
    talk.cycle.do("CHAT_UPDATE", chat_id=talk.chat_id, add_users=[bob])
    assert len(found(talk, "engine", user_id=bob)) == 3


def test_other_branches_are_searched_too(talk: Scene) -> None:
    talk.provider.script(scripts.answer("A machine."))
    talk.cycle.do("LLM_RESPONSE_REGENERATE", message_id=1)

    assert len(found(talk, "engine")) == 3
    assert len(found(talk, "machine")) == 1


def test_a_search_for_nobody_is_not_found(cycle: Cycle) -> None:
    assert cycle.fail("CHAT_SEARCH", user_id=77, query="x").code == "not_found"


def test_a_text_of_many_words_can_be_kept_and_found(scene: Scene) -> None:
    words = " ".join(f"word{number}" for number in range(9_000))
    scene.provider.script(scripts.answer("short"))

    scene.ask(words)

    assert len(found(scene, "word8999")) == 1


def test_an_export_has_all_branches(talk: Scene) -> None:
    talk.provider.script(scripts.answer("A machine."))
    talk.cycle.do("LLM_RESPONSE_REGENERATE", message_id=1)

    exported = talk.cycle.do("CHAT_EXPORT", chat_id=talk.chat_id)

    assert exported["next"] is None
    assert exported["chat"]["title"] == "Engines"
    assert [m["message_id"] for m in exported["chat"]["messages"]] == [1, 2, 3, 4, 5, 6, 7]
