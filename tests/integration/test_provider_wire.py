"""OpenAI's wire over real HTTP: what is sent, and what is made of a right answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmchatlinker.providers.base import ChatAnswer, Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.openai import OpenAI
from tests.fixtures.wires import KEY, REQUEST, chat
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider

# --- what is sent -------------------------------------------------------------------------------


def test_a_chat_request_has_model_messages_and_parameters(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    OpenAI().chat(endpoint, REQUEST, Call())

    (call,) = provider.calls
    assert call.body == {
        "model": "echo",
        "messages": [{"role": "user", "content": "Hello"}],
        "temperature": 0.5,
        "stream": False,
    }
    assert call.headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_nothing_is_authorised(
    provider: ScriptedProvider, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login ada password leaked\n")
    monkeypatch.setenv("NETRC", str(netrc))

    OpenAI().chat(replace(endpoint, api_key=None), REQUEST, Call())

    assert "authorization" not in provider.calls[0].headers


def test_a_cookie_of_one_answer_does_not_travel_with_the_next_request(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    chat(provider, endpoint, scripts.with_headers(Set_Cookie="user=ada; Path=/"))

    chat(provider, endpoint, scripts.echo)

    assert "cookie" not in provider.calls[1].headers


def test_connections_are_used_again(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    for _ in range(3):
        OpenAI().chat(endpoint, REQUEST, Call())

    assert provider.connections == 1


def test_the_models_are_listed_in_order(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    provider.models = ["zeta", "alpha"]

    assert OpenAI().models(endpoint) == ["alpha", "zeta"]
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


# --- right answers ------------------------------------------------------------------------------


def test_an_answer_has_text_reason_and_usage(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    answer = chat(provider, endpoint, scripts.answer("two words", finish="length"))

    assert answer == ChatAnswer("two words", "length", usage=Usage(1, 2, 3))


def test_usage_may_be_missing(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    answer = chat(provider, endpoint, scripts.answer("hi", usage=False))

    assert answer.usage == Usage(None, None, None)


def test_tool_calls_may_come_without_a_text(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

    answer = chat(provider, endpoint, scripts.answer(None, finish="tool_calls", tool_calls=calls))

    assert (answer.content, answer.tool_calls) == ("", calls)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(
    provider: ScriptedProvider, endpoint: Endpoint, field: str
) -> None:
    answer = chat(provider, endpoint, scripts.answer("4", **{field: "2 and 2"}))

    assert (answer.content, answer.reasoning) == ("4", "2 and 2")


def test_a_content_of_parts_is_put_together(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    parts: Any = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]

    document = {"choices": [{"message": {"content": parts}}]}

    assert chat(provider, endpoint, scripts.document(document)).content == "ab"


def test_what_postgresql_cannot_keep_is_replaced(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    broken = "a\x00b\ud800c"
    called = {"id": broken, "function": {"name": broken, "arguments": broken}}
    answer = chat(
        provider,
        endpoint,
        scripts.answer(broken, reasoning=broken, tool_calls=[called], finish=broken),
    )

    whole = "a\ufffdb\ufffdc"
    assert (answer.content, answer.reasoning, answer.finish_reason) == (whole, whole, whole)
    assert answer.tool_calls == [
        {"id": whole, "type": "function", "function": {"name": whole, "arguments": whole}}
    ]


def test_a_compressed_answer_is_read(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    assert chat(provider, endpoint, scripts.gzipped("small")).content == "small"


def test_an_answer_without_a_length_is_read(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    assert chat(provider, endpoint, scripts.without_length("long")).content == "long"
