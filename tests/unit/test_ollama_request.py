"""A conversation as Ollama takes it: images apart, and OpenAI's parameters in its words."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker.errors import InvalidData
from llmchatlinker.providers.ollama import _message, _parameters

#: What is given, and what becomes of it.
PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"temperature": 0, "seed": 1}, {"options": {"temperature": 0, "seed": 1}}),
    ({"max_tokens": 7}, {"options": {"num_predict": 7}}),
    ({"max_completion_tokens": 7}, {"options": {"num_predict": 7}}),
    ({"stop": "x"}, {"options": {"stop": ["x"]}}),
    ({"options": {"num_ctx": 4096}}, {"options": {"num_ctx": 4096}}),
    ({"seed": 1, "options": {"seed": 2}}, {"options": {"seed": 2}}),
    ({"seed": None, "think": True, "keep_alive": "5m"}, {"think": True, "keep_alive": "5m"}),
    ({"response_format": {"type": "json_object"}}, {"format": "json"}),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
        {"format": {"type": "object"}},
    ),
    ({"tools": [1], "tool_choice": "auto"}, {"tools": [1]}),
    ({"tools": [1], "tool_choice": "none"}, {}),
]


@pytest.mark.parametrize(("given", "wanted"), PARAMETERS)
def test_parameters_are_put_into_its_words(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert _parameters(given) == wanted


@pytest.mark.parametrize(
    "given",
    [
        {"tool_choice": "required"},
        {"response_format": {"type": "xml"}},
        {"response_format": "json"},
    ],
)
def test_what_it_cannot_be_asked_is_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidData) as caught:
        _parameters(given)

    assert caught.value.details["fields"][0]["field"] == f"parameters.{next(iter(given))}"


def part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def test_images_go_beside_the_text() -> None:
    texts = [{"type": "text", "text": word} for word in ("one", "two")]

    sent = _message({"role": "user", "content": [*texts, part("data:image/png;base64,AAAA")]})

    assert sent == {"role": "user", "content": "one\ntwo", "images": ["AAAA"]}


def test_an_image_by_its_address_is_refused() -> None:
    with pytest.raises(InvalidData, match="user_input"):
        _message({"role": "user", "content": [part("https://x/cat.png")]})
