"""Instruction ids: of version 7, in order of time, and told from any other text."""

from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.ids import as_instruction_id, new_instruction_id

VERSION_4 = "6f6b8d4c-6c1a-4a58-9c57-0d6f9a1f2b3c"
VERSION_1 = "7d444840-9dc0-11d1-b245-5ffdce74fad2"


def test_an_id_is_a_uuid_of_version_7() -> None:
    value = new_instruction_id()

    assert value.version == 7
    assert value.variant == uuid.RFC_4122


def test_an_id_begins_with_the_time() -> None:
    before = time.time_ns() // 1_000_000
    milliseconds = new_instruction_id().int >> 80
    after = time.time_ns() // 1_000_000

    assert before <= milliseconds <= after


def test_no_two_ids_are_the_same() -> None:
    assert len({new_instruction_id() for _ in range(10_000)}) == 10_000


def test_an_id_is_found_in_its_text() -> None:
    value = new_instruction_id()

    assert as_instruction_id(str(value)) == value
    assert as_instruction_id(value) == value


@pytest.mark.parametrize(
    "other",
    [uuid.UUID(VERSION_4), VERSION_4, uuid.UUID(VERSION_1), "", "group:1", None, 5, b"x", "é" * 36],
)
def test_what_is_no_instructions_id_is_told_apart(other: object) -> None:
    assert as_instruction_id(other) is None


@given(st.text())
def test_no_text_whatever_raises(text: str) -> None:
    as_instruction_id(text)
