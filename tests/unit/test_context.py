"""What of a chat's history is sent: whole turns, the newest, as many as fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.errors import InvalidData
from llmchatlinker.units.context import (
    TOKENS_PER_IMAGE,
    conversation,
    corrected,
    estimate,
    estimated,
    ratio,
)
from llmchatlinker.units.tree import Told

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}


def history(*texts: str) -> list[Told]:
    """Questions and answers in turn."""
    roles = ("user", "assistant")
    return [
        Told(number + 1, number or None, roles[number % 2], text, None, False, False)
        for number, text in enumerate(texts)
    ]


def texts(messages: list[dict[str, str]]) -> list[str]:
    return [message["content"] for message in messages]


def test_without_a_window_everything_is_sent_oldest_first() -> None:
    sent = conversation("Be brief.", history("q1", "a1", "q2", "a2"), "q3", None, None)

    assert [(m["role"], m["content"]) for m in sent] == [
        ("system", "Be brief."),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
        ("user", "q3"),
    ]


def test_without_a_system_prompt_there_is_no_system_message() -> None:
    assert conversation(None, [], "q", None, None) == [{"role": "user", "content": "q"}]


def test_whole_turns_go_oldest_first() -> None:
    long = "x" * 300  # 108 tokens
    past = history(long, long, "q2", "a2", "q3", "a3")

    assert texts(conversation(None, past, "q4", 200, 50)) == ["q2", "a2", "q3", "a3", "q4"]


def test_an_answer_never_stays_without_its_question() -> None:
    past = history("x" * 300, "a1", "q2", "a2")

    assert texts(conversation(None, past, "q3", 120, 40)) == ["q2", "a2", "q3"]


def test_an_older_turn_does_not_slip_in_past_one_that_did_not_fit() -> None:
    past = history("q1", "a1", "x" * 300, "a2", "q3", "a3")

    assert texts(conversation(None, past, "q4", 120, 40)) == ["q3", "a3", "q4"]


def test_the_system_prompt_is_always_sent() -> None:
    sent = conversation("Be brief.", history("x" * 600, "a1"), "q2", 100, 40)

    assert texts(sent) == ["Be brief.", "q2"]


def test_a_question_that_does_not_fit_is_refused_by_name_and_not_repeated() -> None:
    with pytest.raises(InvalidData, match="user_input") as caught:
        conversation(None, [], "secret " * 100, 64, None)

    assert "secret" not in caught.value.message + str(caught.value.details)


def test_an_erased_turn_is_not_sent() -> None:
    past = history("q1", "a1", "", "", "q3", "a3")
    past[2:4] = [replace(message, erased=True) for message in past[2:4]]

    assert texts(conversation(None, past, "q4", None, None)) == ["q1", "a1", "q3", "a3", "q4"]


@given(
    past=st.lists(st.text(max_size=200), max_size=12),
    user_input=st.text(min_size=1, max_size=50),
    window=st.integers(16, 400),
    max_tokens=st.none() | st.integers(1, 100),
)
def test_what_is_sent_leaves_room_for_the_answer(
    past: list[str], user_input: str, window: int, max_tokens: int | None
) -> None:
    try:
        sent = conversation(None, history(*past), user_input, window, max_tokens)
    except InvalidData:
        return
    room = window - (max_tokens or window // 4)
    assert estimated(sent) <= room
    assert sent[-1]["content"] == user_input
    assert sent[0]["role"] == "user"


def test_a_question_of_parts_is_sent_as_it_is() -> None:
    parts = [{"type": "text", "text": "What is it?"}, IMAGE]
    (earlier,) = history("What is it?")

    sent = conversation(None, [replace(earlier, parts=parts)], parts, None, None)

    assert [message["content"] for message in sent] == [parts, parts]


def test_an_image_counts_the_same_whatever_its_size() -> None:
    large = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 9_000}}

    assert estimate([IMAGE]) == estimate([large]) > TOKENS_PER_IMAGE


def test_an_answer_of_which_nothing_came_is_not_sent() -> None:
    past = history("q1", "", "q2", "a2")

    assert texts(conversation(None, past, "q3", None, None)) == ["q1", "q2", "a2", "q3"]


CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"at": "Oslo"}'},
}
TEXT_CALL = {"id": "2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}


def test_calls_of_tools_are_sent_as_text_behind_the_answers() -> None:
    past = history("q1", "", "q2", "a2")
    past[1] = replace(past[1], tool_calls=[CALL, TEXT_CALL])
    past[3] = replace(past[3], tool_calls=[CALL])
    called = '[called weather: {"at": "Oslo"}]'

    assert texts(conversation(None, past, "q3", None, None)) == [
        *("q1", f"{called}\n[called sh: ls]"),
        *("q2", f"a2\n{called}"),
        "q3",
    ]


def test_a_call_of_a_tool_that_was_broken_off_is_not_sent() -> None:
    past = history("q1", "half")
    past[1] = replace(past[1], status="cancelled", tool_calls=[CALL])

    assert texts(conversation(None, past, "q2", None, None)) == ["q1", "half", "q2"]


def test_half_an_answer_is_sent() -> None:
    past = history("q1", "half an ans")

    assert texts(conversation(None, past, "q2", None, None)) == ["q1", "half an ans", "q2"]


def test_a_turn_that_was_rolled_back_is_not_sent() -> None:
    past = history("q1", "a1", "q2", "a2")
    past[2:4] = [replace(message, hidden=True) for message in past[2:4]]

    assert texts(conversation(None, past, "q3", None, None)) == ["q1", "a1", "q3"]


def test_tools_take_room_too() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "x" * 330}}]
    past = history("q1", "a1")

    assert texts(conversation(None, past, "q2", 200, 50)) == ["q1", "a1", "q2"]
    assert texts(conversation(None, past, "q2", 200, 50, tools=tools)) == ["q2"]


@pytest.mark.parametrize("max_tokens", [0, -1])
def test_a_max_tokens_that_means_as_many_as_there_is_room_for_leaves_a_quarter(
    max_tokens: int,
) -> None:
    past = history("x" * 300, "a1")

    assert texts(conversation(None, past, "q", 120, max_tokens)) == ["q"]


def test_a_max_tokens_that_leaves_no_room_is_refused_by_its_own_name() -> None:
    with pytest.raises(InvalidData, match=r"parameters\.max_tokens"):
        conversation(None, [], "q", 100, 100)


def test_what_the_provider_counted_corrects_the_estimate() -> None:
    past = history("x" * 240, "a1")  # about 97 tokens by our estimate
    half, double = ratio([(100, 50), (300, 150)]), ratio([(100, 200)])

    assert (half, double) == (0.5, 2.0)
    assert corrected(97, half) == 49
    assert len(conversation(None, past, "q", 100, 10, ratio=half)) == 3
    assert len(conversation(None, past, "q", 200, 10, ratio=double)) == 1


def test_a_correction_is_bounded_and_takes_reports_that_mean_something() -> None:
    assert ratio([]) == ratio([(0, 100), (100, 0)]) == 1.0
    assert ratio([(1, 1_000_000)]) == 4.0
    assert ratio([(1_000_000, 1)]) == 0.25


@given(st.text())
def test_an_estimate_grows_with_the_text(text: str) -> None:
    assert estimate(text) < estimate(text + "more")
