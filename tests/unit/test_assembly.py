"""An answer put together: what is handed on piece by piece is what is returned in the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmchatlinker.providers.assembly import Assembly
from llmchatlinker.providers.base import ChatAnswer, Delta, Endpoint
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.documents import clean
from llmchatlinker.streaming.events import Partial, delta_event

PARROT = ("\ud83e", "\udd9c")  # 🦜 in two halves


class Collected:
    """An assembly, and what it has handed on."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.assembly = Assembly(
            Endpoint("p", "http://p"), Call(), self.deltas.append, streamed=True
        )

    def whole(self) -> ChatAnswer:
        answer = self.assembly.answer()
        assert answer.content == self.sum("text")
        assert (answer.reasoning or "") == self.sum("reasoning")
        for number, call in enumerate(answer.tool_calls or []):
            assert call["function"]["arguments"] == self.sum("tool_call", number)
            mine = [delta for delta in self.deltas if delta.index == number]
            assert [d.id for d in mine if d.id] == [i for i in [call["id"]] if i]
            name = call["function"]["name"]
            assert [d.name for d in mine if d.name] == [n for n in [name] if n]
        assert all(delta.text == clean(delta.text) for delta in self.deltas)
        return answer

    def sum(self, kind: str, index: int | None = None) -> str:
        return "".join(d.text for d in self.deltas if d.kind == kind and d.index == index)


@pytest.fixture
def collected() -> Collected:
    return Collected()


awkward = st.text(st.sampled_from(["a", "\x00", *PARROT, "🦜", "é"]), max_size=8)


@given(texts=st.lists(awkward, max_size=8), thoughts=st.lists(awkward, max_size=4))
@example(texts=list(PARROT), thoughts=[])
@example(texts=[PARROT[0], "", PARROT[1]], thoughts=[])
@example(texts=[PARROT[0], "a"], thoughts=[PARROT[0]])
def test_the_pieces_are_the_whole_and_can_be_kept(texts: list[str], thoughts: list[str]) -> None:
    collected = Collected()
    for text in texts:
        collected.assembly.text(text)
    for thought in thoughts:
        collected.assembly.reasoning(thought)

    answer = collected.whole()

    assert answer.content == clean("".join(texts))
    assert (answer.reasoning or "") == clean("".join(thoughts))


def test_half_an_emoji_waits_for_its_other_half(collected: Collected) -> None:
    for piece in ("a" + PARROT[0], PARROT[1] + "b"):
        collected.assembly.text(piece)

    assert [delta.text for delta in collected.deltas] == ["a", "🦜b"]


def test_half_an_emoji_whose_other_half_never_comes_is_replaced(collected: Collected) -> None:
    collected.assembly.text("a" + PARROT[0])

    assert collected.whole().content == "a\ufffd"


def test_nothing_is_no_delta(collected: Collected) -> None:
    collected.assembly.text("")
    collected.assembly.reasoning("")

    assert collected.whole() == ChatAnswer("")
    assert collected.deltas == []


def named(*names: Any) -> list[tuple[Any, Any, Any]]:
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in names]


def test_calls_of_tools_are_told_apart_by_their_keys(collected: Collected) -> None:
    add = collected.assembly.tool_call
    add("", key=0, id="a", name="f")
    add("", key=1, id="b", name="g")
    add('{"x"', key=0)
    add("{}", key=1)
    add(": 1}", key=0)

    answer = collected.whole()
    assert named(*answer.tool_calls or []) == [("a", "f", '{"x": 1}'), ("b", "g", "{}")]


def test_calls_that_are_all_numbered_0_are_told_apart_by_their_ids(collected: Collected) -> None:
    for id, name in (("a", "f"), ("b", "g")):
        collected.assembly.tool_call("{}", key=0, id=id, name=name)

    assert named(*collected.whole().tool_calls or []) == [("a", "f", "{}"), ("b", "g", "{}")]


def test_a_new_id_for_each_piece_of_a_call_makes_no_new_call(collected: Collected) -> None:
    collected.assembly.tool_call("{", key=0, id="a", name="f")
    collected.assembly.tool_call("}", key=0, id="b")

    assert named(*collected.whole().tool_calls or []) == [("a", "f", "{}")]


def test_a_piece_without_a_key_and_an_id_belongs_to_the_last_call(collected: Collected) -> None:
    collected.assembly.tool_call("{", id="a", name="f")
    collected.assembly.tool_call("}")

    assert named(*collected.whole().tool_calls or []) == [("a", "f", "{}")]


def test_arguments_that_come_as_an_object_become_text(collected: Collected) -> None:
    collected.assembly.tool_call({"x": ["é"]}, id="a", name="f")

    assert named(*collected.whole().tool_calls or []) == [("a", "f", '{"x": ["é"]}')]


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 2),
            st.sampled_from([None, "a", "b"]),
            st.sampled_from([None, "f"]),
            awkward,
        ),
        max_size=8,
    )
)
def test_any_pieces_of_calls_are_the_whole(
    pieces: list[tuple[int | None, str | None, str | None, str]],
) -> None:
    collected = Collected()
    for key, id, name, text in pieces:
        collected.assembly.tool_call(text, key=key, id=id, name=name)

    collected.whole()


def test_what_came_of_a_call_of_a_tool_that_takes_text_is_a_call_of_that_kind() -> None:
    collected = Collected()
    collected.assembly.tool_call("l", key=0, id="1", name="shell", custom=True)
    collected.assembly.tool_call("s", key=0)
    collected.assembly.tool_call("{}", key=1, id="2", name="f")

    said = Partial()
    said.add(delta_event(delta) for delta in collected.deltas)

    assert said.tool_calls == collected.assembly.answer().tool_calls
    assert [call["type"] for call in said.tool_calls or []] == ["custom", "function"]
