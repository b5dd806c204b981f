"""What a user says: text, or parts of text and images."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker.errors import InvalidData
from llmchatlinker.instruction_data.content import (
    IMAGES,
    PARTS,
    ImagePart,
    TextPart,
    parts_of,
    text_of,
)
from llmchatlinker.instruction_data.llm import LLMReference, LLMResponseGenerate
from llmchatlinker.units.control import parse

TEXT = {"type": "text", "text": "What is it?"}
LINK = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png", "detail": "low"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0="}}


def asked(user_input: Any, **more: Any) -> LLMResponseGenerate:
    data = {"user_id": 1, "chat_id": 1, "llm_id": 1, "user_input": user_input} | more
    return parse(LLMResponseGenerate, data)


def image(url: Any) -> list[Any]:
    return [{"type": "image_url", "image_url": {"url": url}}]


def test_a_text_is_a_text() -> None:
    said = asked("Hello").user_input

    assert (said, text_of(said), parts_of(said)) == ("Hello", "Hello", None)


def test_parts_are_kept_as_they_are() -> None:
    said = asked([TEXT, LINK, INLINE]).user_input

    assert isinstance(said[0], TextPart)
    assert isinstance(said[1], ImagePart)
    assert parts_of(said) == [TEXT, LINK, INLINE]
    assert text_of(said) == "What is it?"


def test_parts_are_the_same_from_the_database() -> None:
    said = asked([TEXT, LINK])
    again = parse(LLMResponseGenerate, said.model_dump(exclude_none=True), decoded=True)

    assert again == said
    assert (parts_of([TEXT, LINK]), text_of([TEXT, TEXT])) == (
        [TEXT, LINK],
        "What is it?\nWhat is it?",
    )


def test_a_list_of_one_text_is_that_text() -> None:
    said = asked([TEXT]).user_input

    assert (text_of(said), parts_of(said)) == ("What is it?", None)


def test_an_image_alone_has_no_text() -> None:
    assert text_of(asked([LINK]).user_input) == ""


WRONG: list[tuple[Any, str]] = [
    ([], "user_input"),
    ({}, "user_input"),
    (["Hello"], "user_input.0"),
    ([None], "user_input.0"),
    ([{"type": "video"}], "user_input.0"),
    ([{"type": ["text"], "text": "x"}], "user_input.0"),
    ([{"text": "x"}], "user_input.0"),
    ([{"type": "text"}], "user_input.0.text"),
    ([{"type": "text", "text": " "}], "user_input.0.text"),
    ([{"type": "text", "text": 5}], "user_input.0.text"),
    ([TEXT, {"type": "text", "text": "x", "cache_control": {}}], "user_input.1.cache_control"),
    ([{"type": "image_url", "image_url": "https://x/y"}], "user_input.0.image_url"),
    (image("ftp://x/y.png"), "user_input.0.image_url.url"),
    (image("https://ada:secret@x/y.png"), "user_input.0.image_url.url"),
    (image("https://x/" + "y" * 8_000), "user_input.0.image_url.url"),
    (image("data:text/html;base64,AAAA"), "user_input.0.image_url.url"),
    (image("data:image/png,AAAA"), "user_input.0.image_url.url"),
    (image("data:image/png;base64,AAA"), "user_input.0.image_url.url"),
    (image("data:image/png;base64,A=AA"), "user_input.0.image_url.url"),
    (image("data:image/png;base64,"), "user_input.0.image_url.url"),
    (image("data:image/png;base64,AA A"), "user_input.0.image_url.url"),
    (image(None), "user_input.0.image_url.url"),
    ([TEXT] * (PARTS + 1), "user_input"),
    ([LINK] * (IMAGES + 1), "user_input"),
    ([{"type": "text", "text": "x" * 60_000}] * 2, "user_input"),
]


@pytest.mark.parametrize(("user_input", "field"), WRONG)
def test_what_is_wrong_is_named_once_and_not_repeated(user_input: Any, field: str) -> None:
    with pytest.raises(InvalidData) as caught:
        asked(user_input)

    assert [item["field"] for item in caught.value.details["fields"]] == [field]
    assert "secret" not in caught.value.message
    assert len(caught.value.message) < 300


def test_nothing_that_was_said_is_in_a_repr() -> None:
    said = asked(
        [{"type": "text", "text": "MARK"}, *image("https://x/MARK")], parameters={"a": "MARK"}
    )

    assert "MARK" not in repr(said) + repr(said.user_input)


# --- fallbacks ----------------------------------------------------------------------------------


def test_a_fallback_is_an_id_or_two_names() -> None:
    named = {"provider_name": "p", "llm_name": "m"}

    assert asked("Hi", fallbacks=[1, {"llm_id": 2}, named]).fallbacks == [
        LLMReference(llm_id=1),
        LLMReference(llm_id=2),
        LLMReference(provider_name="p", llm_name="m"),
    ]


@pytest.mark.parametrize(
    "fallback",
    [
        0,
        True,
        "m",
        None,
        {},
        {"provider_name": "p"},
        {"llm_id": 1, "llm_name": "m"},
        {"id": 1},
        [1],
    ],
)
def test_anything_else_is_no_fallback(fallback: Any) -> None:
    with pytest.raises(InvalidData, match="fallbacks"):
        asked("Hi", fallbacks=[fallback])
