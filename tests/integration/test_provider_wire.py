"""OpenAI's wire over real HTTP: right answers, and every way of not getting one."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchatlinker.errors import ProviderError, ProviderTimeout
from llmchatlinker.providers.base import ChatAnswer, ChatRequest, Endpoint, Usage
from llmchatlinker.providers.openai import OpenAI
from tests.servers import free_ports, scripts
from tests.servers.provider import Script, ScriptedProvider

KEY = "sk-0123456789abcdef"
REQUEST = ChatRequest("echo", [{"role": "user", "content": "Hello"}], {"temperature": 0.5})


@pytest.fixture
def endpoint(provider: ScriptedProvider) -> Endpoint:
    return Endpoint("scripted", provider.base_url, KEY, 2.0, 2.0, 5.0, 1_000_000)


def chat(provider: ScriptedProvider, endpoint: Endpoint, script: Script) -> ChatAnswer:
    """One call, answered by the script."""
    provider.script(script)
    return OpenAI().chat(endpoint, REQUEST)


def refusal(provider: ScriptedProvider, endpoint: Endpoint, script: Script) -> ProviderError:
    """The error of one call."""
    with pytest.raises(ProviderError) as caught:
        chat(provider, endpoint, script)
    assert KEY not in caught.value.message + str(caught.value.details)
    assert "scripted" in caught.value.message
    return caught.value


# --- what is sent -------------------------------------------------------------------------------


def test_a_chat_request_has_model_messages_and_parameters(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    OpenAI().chat(endpoint, REQUEST)

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

    OpenAI().chat(replace(endpoint, api_key=None), REQUEST)

    assert "authorization" not in provider.calls[0].headers


def test_a_cookie_of_one_answer_does_not_travel_with_the_next_request(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    chat(provider, endpoint, scripts.with_headers(Set_Cookie="user=ada; Path=/"))

    chat(provider, endpoint, scripts.echo)

    assert "cookie" not in provider.calls[1].headers


def test_connections_are_used_again(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    for _ in range(3):
        OpenAI().chat(endpoint, REQUEST)

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
    answer = chat(
        provider,
        endpoint,
        scripts.answer(broken, reasoning=broken, tool_calls=[{broken: broken}], finish=broken),
    )

    whole = "a\ufffdb\ufffdc"
    assert (answer.content, answer.reasoning, answer.finish_reason) == (whole, whole, whole)
    assert answer.tool_calls == [{whole: whole}]


def test_a_compressed_answer_is_read(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    assert chat(provider, endpoint, scripts.gzipped("small")).content == "small"


def test_an_answer_without_a_length_is_read(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    assert chat(provider, endpoint, scripts.without_length("long")).content == "long"


# --- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422, 429, 500, 502, 503, 529])
def test_a_refusal_says_status_and_the_providers_words(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    error = refusal(provider, endpoint, scripts.error(status, "on  fire\n today"))

    assert type(error) is ProviderError
    assert error.details["http_status"] == status
    assert f"HTTP {status}: on fire today" in error.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_not_quoted(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    error = refusal(provider, endpoint, scripts.error(status, f"Incorrect API key: {KEY[:9]}"))

    assert KEY[:9] not in error.message
    assert error.details["http_status"] == status


def test_a_key_in_the_providers_words_is_blotted_out(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    error = refusal(provider, endpoint, scripts.error(400, f"what is {KEY} for?"))

    assert "what is *** for?" in error.message


@pytest.mark.parametrize("status", [408, 504])
def test_a_timeout_of_the_providers_own_is_a_timeout(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    assert type(refusal(provider, endpoint, scripts.html(status))) is ProviderTimeout


@pytest.mark.parametrize("status", [200, 400, 502])
def test_a_page_of_html_is_not_quoted(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    error = refusal(provider, endpoint, scripts.html(status))

    assert "nginx" not in error.message
    assert error.details["http_status"] == status


@pytest.mark.parametrize("status", [200, 204, 400, 500])
def test_an_empty_body_is_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    assert type(refusal(provider, endpoint, scripts.raw(b"", status))) is ProviderError


def test_retry_after_is_handed_on(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    error = refusal(provider, endpoint, scripts.error(429, "slow down", Retry_After="17"))

    assert error.details["retry_after"] == 17


@pytest.mark.parametrize(
    "value", ["soon", "-1", "1.5", "\xb2", "9" * 5_000, "Fri, 31 Dec 1999 23:59:59 GMT", ""]
)
def test_a_retry_after_that_is_no_number_of_seconds_is_left_out(
    provider: ScriptedProvider, endpoint: Endpoint, value: str
) -> None:
    error = refusal(provider, endpoint, scripts.error(429, "slow down", Retry_After=value))

    assert error.details["http_status"] == 429
    assert "retry_after" not in error.details


def test_a_redirect_is_not_followed(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    with ScriptedProvider() as elsewhere:
        there = f"{elsewhere.base_url}/chat/completions"
        error = refusal(provider, endpoint, scripts.redirect(there))

        assert error.details["http_status"] == 307
        assert elsewhere.requests == []


def test_a_long_complaint_is_cut(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    assert len(refusal(provider, endpoint, scripts.error(500, "no " * 10_000)).message) < 500


@pytest.mark.parametrize("status", [200, 500])
def test_a_document_nested_without_end_is_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, status: int
) -> None:
    error = refusal(provider, endpoint, scripts.raw(b"[" * 200_000, status))

    assert error.details["http_status"] == status


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_no_json_is_an_answer_that_can_be_kept_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, number: str
) -> None:
    body = f'{{"choices": [{{"message": {{"tool_calls": [{{"x": {number}}}]}}}}]}}'.encode()

    try:
        answer = chat(provider, endpoint, scripts.raw(body))
    except ProviderError:
        return
    json.dumps(answer.tool_calls, allow_nan=False)


@pytest.mark.parametrize("depth", [200, 400, 600, 800])
def test_tool_calls_nested_deeply_are_an_answer_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, depth: int
) -> None:
    calls = "[" * depth + "]" * depth
    body = f'{{"choices": [{{"message": {{"tool_calls": {calls}}}}}]}}'.encode()

    try:
        answer = chat(provider, endpoint, scripts.raw(body))
    except ProviderError:
        return
    assert answer.tool_calls is not None


# --- broken connections -------------------------------------------------------------------------


@pytest.mark.parametrize("script", [scripts.half, scripts.reset])
def test_a_broken_connection_is_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, script: Script
) -> None:
    assert type(refusal(provider, endpoint, script)) is ProviderError
    assert len(provider.calls) == 1


def test_nobody_there_is_an_error(endpoint: Endpoint) -> None:
    (port,) = free_ports(1)

    with pytest.raises(ProviderError, match="[Rr]efused"):
        OpenAI().chat(replace(endpoint, url=f"http://127.0.0.1:{port}/v1"), REQUEST)


@pytest.mark.parametrize(
    "url",
    [
        "http://no-such-host.invalid/v1",
        "http://127.0.0.1:99999/v1",
        "http://127.0.0.1:x/v1",
        "http://[::1/v1",
        "http://[x]/v1",
        "http://.../v1",
        "http://*/v1",
        "http://" + "h" * 300 + "/v1",
        "http://\u2603.invalid/v1",
        "http://a\\b/v1",
        "http://%/v1",
    ],
)
def test_an_address_that_is_none_is_an_error(endpoint: Endpoint, url: str) -> None:
    with pytest.raises(ProviderError):
        OpenAI().chat(replace(endpoint, url=url), REQUEST)


def test_an_endless_answer_is_given_up(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    error = refusal(provider, endpoint, scripts.endless)

    assert "1000000 bytes" in error.message


@pytest.mark.parametrize(
    "script",
    [
        scripts.drip(0.1),
        scripts.drip_headers(0.1),
        scripts.without_length("x" * 5_000, interval=0.1),
        scripts.stall(b"{", 0.8),
        scripts.after(3.0, scripts.echo),
    ],
    ids=["drip", "dripping headers", "drip without a length", "stall", "silence"],
)
def test_a_whole_answer_has_its_time_and_no_more(
    provider: ScriptedProvider, endpoint: Endpoint, script: Script
) -> None:
    started = time.monotonic()

    error = refusal(provider, replace(endpoint, total_timeout=1.0), script)

    assert type(error) is ProviderTimeout
    assert 0.9 < time.monotonic() - started < 1.6


def test_two_pieces_of_an_answer_may_be_so_far_apart_and_no_further(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    started = time.monotonic()

    error = refusal(provider, replace(endpoint, read_timeout=0.5), scripts.stall(b"{", 0.3))

    assert type(error) is ProviderTimeout
    assert 0.7 < time.monotonic() - started < 1.5


def test_the_call_after_one_that_was_given_up_is_served(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    refusal(provider, replace(endpoint, total_timeout=0.3), scripts.drip(0.1))

    assert chat(provider, endpoint, scripts.answer("fine")).content == "fine"


# --- anything at all ----------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "content", "tool_calls", "reasoning", "error", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": anything,
        "tool_calls": anything,
        "reasoning_content": anything,
        "reasoning": anything,
    },
)
choices = st.lists(
    anything
    | st.fixed_dictionaries({"message": anything | messages}, optional={"finish_reason": anything}),
    max_size=2,
)
documents = anything | st.fixed_dictionaries(
    {"choices": anything | choices}, optional={"usage": anything, "error": anything}
)
whatever = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@whatever
@given(document=documents)
def test_any_document_is_an_answer_that_can_be_kept_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, document: Any
) -> None:
    try:
        answer = chat(provider, endpoint, scripts.document(document))
    except ProviderError:
        return
    kept = [answer.content, answer.finish_reason, answer.reasoning, answer.tool_calls]
    text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    assert "\x00" not in text.encode("utf-8").decode("utf-8")


@whatever
@given(body=st.binary() | anything.map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_any_body_whatever_is_an_answer_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, status: int, body: bytes
) -> None:
    try:
        chat(provider, endpoint, scripts.raw(body, status))
    except ProviderError as error:
        json.dumps([error.message, error.details], ensure_ascii=False).encode("utf-8")


@whatever
@given(document=anything | st.fixed_dictionaries({"data": anything}))
def test_any_list_of_models_is_names_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, document: Any
) -> None:
    provider.models_script = scripts.document(document)
    try:
        names = OpenAI().models(endpoint)
    except ProviderError:
        return
    assert all(isinstance(name, str) for name in names)
