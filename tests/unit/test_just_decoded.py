"""What execute need not read again: for how long, how many, and once."""

from __future__ import annotations

import pytest

from llmchatlinker import just_decoded
from llmchatlinker.just_decoded import KEPT_SECONDS, JustDecoded


def test_what_was_decoded_just_now_is_taken_once() -> None:
    memory = JustDecoded()
    memory.remember("1", "USER_LIST", {"limit": 1}, 60.0)

    found = memory.take("1")

    assert found is not None
    assert (found.type, found.data) == ("USER_LIST", {"limit": 1})
    assert memory.take("1") is None


def test_what_was_decoded_long_ago_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = JustDecoded()
    memory.remember("1", "USER_LIST", {}, 60.0)
    monkeypatch.setattr(just_decoded, "KEPT_SECONDS", 0.0)

    assert memory.take("1") is None


def test_what_may_be_late_by_then_is_not_remembered() -> None:
    memory = JustDecoded()

    memory.remember("1", "USER_LIST", {}, KEPT_SECONDS)

    assert memory.take("1") is None


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(just_decoded, "KEPT", 2)
    memory = JustDecoded()

    for number in range(3):
        memory.remember(str(number), "USER_LIST", {}, 60.0)

    assert [memory.take(str(number)) is not None for number in range(3)] == [False, True, True]
