"""OpenAI's wire over real HTTP: every way of not getting an answer."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llmchatlinker.errors import ProviderError, ProviderTimeout
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.openai import OpenAI
from llmchatlinker.providers.retrying import is_retryable
from tests.fixtures.wires import KEY, REQUEST, chat, refusal
from tests.servers import free_ports, scripts
from tests.servers.provider import Script, ScriptedProvider

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


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry_After": "17"}, 17.0),
        ({"Retry_After": "1.5"}, 1.5),
        ({"retry_after_ms": "250", "Retry_After": "17"}, 0.25),
    ],
)
def test_retry_after_is_handed_on(
    provider: ScriptedProvider, endpoint: Endpoint, headers: dict[str, str], seconds: float
) -> None:
    error = refusal(provider, endpoint, scripts.error(429, "slow down", **headers))

    assert error.details["retry_after"] == seconds


def test_retry_after_may_be_a_moment(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)

    error = refusal(provider, endpoint, scripts.error(503, "slow down", Retry_After=then))

    assert 50 < error.details["retry_after"] <= 60


def test_a_header_in_the_providers_words_is_blotted_out(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    tenant = replace(endpoint, headers={"X-Tenant": "tenant-7f3a"})

    error = refusal(provider, tenant, scripts.error(400, "who is tenant-7f3a?"))

    assert "who is ***?" in error.message


def test_the_providers_own_word_for_an_error_is_kept(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    said = {"error": {"message": "pay", "type": "billing", "code": "insufficient_quota"}}

    error = refusal(provider, endpoint, scripts.document(said, 429))

    assert error.details["provider_code"] == "insufficient_quota"
    assert not is_retryable(error)


@pytest.mark.parametrize(
    "value", ["soon", "-1", "\xb2", "9" * 5_000, "Fri, 31 Dec 1999 23:59:59 GMT", ""]
)
def test_a_retry_after_that_is_no_time_to_come_is_left_out(
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
    nested = "[" * depth + "]" * depth
    called = f'{{"function": {{"name": "f", "arguments": {nested}}}}}'
    body = f'{{"choices": [{{"message": {{"tool_calls": [{called}]}}}}]}}'.encode()

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
        OpenAI().chat(replace(endpoint, url=f"http://127.0.0.1:{port}/v1"), REQUEST, Call())


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
        OpenAI().chat(replace(endpoint, url=url), REQUEST, Call())


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
        scripts.after(100.0, scripts.echo),
    ],
    ids=["drip", "dripping headers", "drip without a length", "stall", "silence"],
)
def test_a_whole_answer_has_its_time_and_no_more(
    provider: ScriptedProvider, endpoint: Endpoint, script: Script
) -> None:
    started = time.monotonic()

    error = refusal(provider, replace(endpoint, read_timeout=100.0, total_timeout=1.0), script)

    assert type(error) is ProviderTimeout
    assert 0.9 < time.monotonic() - started < 60


def test_two_pieces_of_an_answer_may_be_so_far_apart_and_no_further(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    started = time.monotonic()

    impatient = replace(endpoint, read_timeout=2.0, total_timeout=100.0)
    error = refusal(provider, impatient, scripts.stall(b"{", 1.0))

    assert type(error) is ProviderTimeout
    assert 2.7 < time.monotonic() - started < 60


def test_the_call_after_one_that_was_given_up_is_served(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    refusal(provider, replace(endpoint, total_timeout=0.3), scripts.drip(0.1))

    assert chat(provider, endpoint, scripts.answer("fine")).content == "fine"
