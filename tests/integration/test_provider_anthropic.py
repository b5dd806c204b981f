"""Anthropic's wire over real HTTP: what it alone does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from llmchatlinker.providers.anthropic import Anthropic
from llmchatlinker.providers.base import Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.retrying import is_retryable
from tests.fixtures.wires import REQUEST, streamed, streamed_refusal
from tests.servers import scripts
from tests.servers.provider import Exchange, ScriptedProvider
from tests.servers.shapes import event


@pytest.fixture
def there(provider: ScriptedProvider, endpoint: Endpoint) -> Endpoint:
    return replace(endpoint, url=provider.root_url)


def sent(**data: Any) -> bytes:
    return event(data, data["type"])


HELLO = sent(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
END = sent(type="message_delta", delta={"stop_reason": "end_turn"}) + sent(type="message_stop")


@pytest.mark.parametrize(
    ("said", "status", "again"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("invalid_request_error", 400, False),
    ],
)
def test_an_error_in_the_middle_has_the_status_that_it_would_have_had(
    provider: ScriptedProvider, there: Endpoint, said: str, status: int, again: bool
) -> None:
    error = sent(type="error", error={"type": said, "message": "too busy"})

    failed, deltas = streamed_refusal(provider, there, scripts.stream(HELLO, error), "anthropic")

    assert (failed.details["http_status"], failed.details["provider_code"]) == (status, said)
    assert "too busy" in failed.message
    assert is_retryable(failed) is again
    assert deltas


def test_what_is_cached_is_part_of_the_prompt(provider: ScriptedProvider, there: Endpoint) -> None:
    usage = {
        "input_tokens": 5,
        "cache_creation_input_tokens": 20,
        "cache_read_input_tokens": 100,
        "output_tokens": 1,
    }
    start = sent(type="message_start", message={"usage": usage})
    more = sent(type="message_delta", delta={}, usage={"output_tokens": 7, "input_tokens": None})

    answer, _ = streamed(provider, there, scripts.stream(start, HELLO, more, END), "anthropic")

    assert answer.usage == Usage(125, 7, 132, 100)


def test_what_the_prompt_took_is_known_before_the_answer_is(
    provider: ScriptedProvider, there: Endpoint
) -> None:
    start = sent(type="message_start", message={"usage": {"input_tokens": 9, "output_tokens": 1}})
    provider.script(scripts.stream(start, HELLO, ending="stall"))
    call = Call()

    with pytest.raises(Exception, match="cancelled"):
        Anthropic().chat(there, REQUEST, call, lambda _: call.cancel())

    assert call.usage == Usage(9)


def test_events_and_blocks_that_nobody_knows_are_passed_over(
    provider: ScriptedProvider, there: Endpoint
) -> None:
    new = [
        sent(type="new_event", index=0),
        sent(type="content_block_start", index=0, content_block={"type": "redacted_thinking"}),
        sent(type="content_block_delta", index=0, delta={"type": "signature_delta"}),
        sent(type="content_block_stop", index=0),
        sent(type="ping"),
    ]

    answer, _ = streamed(provider, there, scripts.stream(*new, HELLO, END), "anthropic")

    assert (answer.content, answer.finish_reason) == ("Hello", "stop")


def test_a_call_of_a_tool_may_come_with_its_whole_input(
    provider: ScriptedProvider, there: Endpoint
) -> None:
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}
    call = sent(type="content_block_start", index=1, content_block=block)
    stop = sent(type="content_block_stop", index=1)

    answer, _ = streamed(provider, there, scripts.stream(HELLO, call, stop, END), "anthropic")

    assert (answer.tool_calls or [])[0]["function"]["arguments"] == '{"x": 1}'


def test_a_refusal_is_blamed(provider: ScriptedProvider, there: Endpoint) -> None:
    answer, _ = streamed(
        provider, there, scripts.answer("I can't.", finish="content_filter"), "anthropic"
    )

    assert answer.finish_reason == "content_filter"


def test_another_version_may_be_asked_for(provider: ScriptedProvider, there: Endpoint) -> None:
    newer = replace(there, headers={"Anthropic-Version": "2099-01-01", "anthropic-beta": "x"})

    streamed(provider, newer, scripts.echo, "anthropic")

    sent_headers = provider.calls[0].headers
    assert sent_headers["anthropic-version"] == "2099-01-01"
    assert sent_headers["anthropic-beta"] == "x"


def test_the_models_are_read_page_by_page(provider: ScriptedProvider, there: Endpoint) -> None:
    pages = iter(
        [
            {"data": [{"id": "b"}], "has_more": True, "last_id": "b/1"},
            {"data": [{"id": "a"}], "has_more": False, "last_id": "a"},
        ]
    )

    def script(exchange: Exchange) -> None:
        exchange.respond_json(200, next(pages))

    provider.models_script = script

    assert Anthropic().models(there) == ["a", "b"]
    paths = [request.path for request in provider.requests]
    assert paths == ["/v1/models?limit=1000", "/v1/models?limit=1000&after_id=b%2F1"]


def test_a_list_of_models_without_an_end_is_given_up(
    provider: ScriptedProvider, there: Endpoint
) -> None:
    page = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    provider.models_script = scripts.document(page)

    assert Anthropic().models(there) == ["a"]
    assert len(provider.requests) == 20
