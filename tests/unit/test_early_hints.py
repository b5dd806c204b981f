"""What is remembered of hints that nobody waits for, and what a hint may bring."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker.results import early
from llmchatlinker.results.early import EarlyHints
from llmchatlinker.results.reading import hinted

ENVELOPE = {"status": "success", "message": "done", "data": {}, "instruction_id": "1"}


def test_only_the_newest_keep_what_they_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "KEPT", 2)
    hints = EarlyHints()

    for number in range(3):
        hints.remember(str(number), {"number": number})

    assert [hints.meta(str(number)) for number in range(3)] == [None, {"number": 1}, {"number": 2}]
    assert all(str(number) in hints for number in range(3))


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "REMEMBERED", 2)
    hints = EarlyHints()

    for number in range(3):
        hints.remember(str(number), None)

    assert [str(number) in hints for number in range(3)] == [False, True, True]
    assert len(hints) == 2


def test_one_that_was_forgotten_and_pushed_out_does_no_harm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(early, "KEPT", 1)
    hints = EarlyHints()
    hints.remember("first", {})
    hints.forget("first")

    hints.remember("second", {"number": 2})

    assert hints.meta("second") == {"number": 2}
    assert "first" not in hints


def test_a_hint_brings_the_meta_of_a_final_instruction() -> None:
    meta = hinted("1", {"id": "1", "date_done": "2026-01-02T03:04:05+00:00", "result": ENVELOPE})

    assert meta == {
        "status": "SUCCESS",
        "result": ENVELOPE,
        "traceback": None,
        "children": [],
        "date_done": "2026-01-02T03:04:05+00:00",
        "task_id": "1",
        "known": True,
        "ended": True,
    }


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"result": ENVELOPE},
        {"date_done": "2026-01-02T03:04:05+00:00"},
        {"date_done": None, "result": ENVELOPE},
        {"date_done": "2026-01-02T03:04:05+00:00", "result": "success"},
        {"date_done": "2026-01-02T03:04:05+00:00", "result": {"message": "done"}},
    ],
)
def test_a_hint_without_a_whole_envelope_brings_none(more: dict[str, Any]) -> None:
    assert hinted("1", {"id": "1", "state": "SUCCESS"} | more) is None
