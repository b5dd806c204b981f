"""What of a chat's history is sent: whole turns, the newest, as many as fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.db.models import Message
from llmchatlinker.errors import InvalidData
from llmchatlinker.units.context import conversation, estimate


def history(*texts: str) -> list[Message]:
    """Questions and answers in turn."""
    roles = ("user", "assistant")
    return [
        Message(role=roles[number % 2], content=text, erased=False)
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
    past[2].erased = past[3].erased = True

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
    assert sum(estimate(text) for text in texts(sent)) <= room
    assert sent[-1]["content"] == user_input
    assert sent[0]["role"] == "user"


@given(st.text())
def test_an_estimate_grows_with_the_text(text: str) -> None:
    assert estimate(text) < estimate(text + "more")
