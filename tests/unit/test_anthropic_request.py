"""A conversation as Anthropic takes it: roles, parts, and OpenAI's parameters in its words."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker.errors import InvalidData
from llmchatlinker.providers.anthropic_request import MAX_TOKENS, body
from llmchatlinker.providers.base import ChatRequest

HELLO = [{"role": "user", "content": "Hello"}]
FUNCTION = {"name": "f", "description": "does it", "parameters": {"type": "object"}}
TOOL = {"name": "f", "description": "does it", "input_schema": {"type": "object"}}


def made(messages: list[dict[str, Any]] = HELLO, **parameters: Any) -> dict[str, Any]:
    return body(ChatRequest("claude", messages, parameters), streamed=True)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_a_plain_question_has_a_model_a_limit_and_a_message() -> None:
    assert made() == {
        "model": "claude",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": [text("Hello")]}],
        "stream": True,
    }


def test_the_system_prompt_is_no_message() -> None:
    sent = made([{"role": "system", "content": "Be brief."}, *HELLO])

    assert sent["system"] == "Be brief."
    assert [message["role"] for message in sent["messages"]] == ["user"]


def test_what_one_side_said_in_a_row_is_one_message() -> None:
    sent = made(
        [
            {"role": "user", "content": "one"},
            {"role": "user", "content": "two"},
            {"role": "assistant", "content": "three"},
            {"role": "user", "content": "four"},
        ]
    )

    assert sent["messages"] == [
        {"role": "user", "content": [text("one"), text("two")]},
        {"role": "assistant", "content": [text("three")]},
        {"role": "user", "content": [text("four")]},
    ]


def test_blank_text_which_anthropic_refuses_is_left_out() -> None:
    sent = made([{"role": "user", "content": "one"}, {"role": "assistant", "content": " "}, *HELLO])

    assert sent["messages"] == [{"role": "user", "content": [text("one"), text("Hello")]}]


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://x/cat.png", {"type": "url", "url": "https://x/cat.png"}),
        (
            "data:image/png;base64,AAAA",
            {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        ),
    ],
)
def test_an_image_is_a_source(url: str, source: dict[str, str]) -> None:
    parts = [text("What is it?"), {"type": "image_url", "image_url": {"url": url}}]

    sent = made([{"role": "user", "content": parts}])

    assert sent["messages"][0]["content"] == [
        text("What is it?"),
        {"type": "image", "source": source},
    ]


#: What is given, and what becomes of it.
PARAMETERS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 7}, {"max_tokens": 7}),
    ({"max_completion_tokens": 7}, {"max_tokens": 7}),
    ({"max_tokens": 8, "max_completion_tokens": 7}, {"max_tokens": 8}),
    ({"stop": "x"}, {"stop_sequences": ["x"]}),
    ({"stop": ["x", "y"]}, {"stop_sequences": ["x", "y"]}),
    ({"stop_sequences": ["x"]}, {"stop_sequences": ["x"]}),
    (
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3},
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3},
    ),
    ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
    ({"seed": 1, "temperature": None}, {}),
    ({"tools": [{"type": "function", "function": FUNCTION}]}, {"tools": [TOOL]}),
    ({"tools": [TOOL]}, {"tools": [TOOL]}),
    ({"tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}),
    ({"tool_choice": "required"}, {"tool_choice": {"type": "any"}}),
    ({"tool_choice": "none"}, {"tool_choice": {"type": "none"}}),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tool_choice": {"type": "tool", "name": "f"}},
    ),
    ({"tool_choice": {"type": "any"}}, {"tool_choice": {"type": "any"}}),
    (
        {"tools": [TOOL], "parallel_tool_calls": False},
        {"tools": [TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    ({"parallel_tool_calls": False}, {}),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
    ),
]


@pytest.mark.parametrize(("given", "wanted"), PARAMETERS)
def test_parameters_are_put_into_its_words(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    sent = made(**given)

    plain = made()
    assert sent == plain | wanted


@pytest.mark.parametrize("wanted", [{"type": "json_object"}, "json", {"type": "json_schema"}])
def test_a_format_that_it_does_not_know_is_refused_by_name(wanted: Any) -> None:
    with pytest.raises(InvalidData) as caught:
        made(response_format=wanted)

    assert caught.value.details["fields"][0]["field"] == "parameters.response_format"
