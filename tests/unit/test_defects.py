"""A defect in the log: where it happened and of what kind it is, and never its words."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

import llmchatlinker
from llmchatlinker.defects import log_defect

logger = logging.getLogger("llmchatlinker.test")
SOURCES = sorted(Path(llmchatlinker.__file__).parent.rglob("*.py"))
#: What these log are no texts of users': the words of the broker, and of a caller's own function.
MAY_QUOTE = {"orchestrator.py", "wakeups.py"}


def _stumble() -> None:
    try:
        int("my prompt")
    except ValueError as cause:
        raise KeyError("my profile") from cause


def test_a_defect_is_logged_with_its_way_and_its_kinds_and_without_its_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(KeyError) as caught:
        _stumble()

    log_defect(logger, "Instruction %s failed", 7, error=caught.value)

    assert "Instruction 7 failed" in caplog.text
    assert "in _stumble" in caplog.text
    assert "ValueError" in caplog.text
    assert "KeyError" in caplog.text
    assert "my prompt" not in caplog.text
    assert "my profile" not in caplog.text


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name not in MAY_QUOTE], ids=lambda p: p.name
)
def test_no_module_logs_an_exceptions_words(path: Path) -> None:
    assert not re.search(r"logger\.exception\(|exc_info=", path.read_text("utf-8"))
