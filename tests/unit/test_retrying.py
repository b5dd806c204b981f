"""Which failures are worth another call, and when it is made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.errors import (
    Cancelled,
    InvalidData,
    LLMChatLinkerError,
    ProviderError,
    ProviderTimeout,
)
from llmchatlinker.providers.retrying import (
    FIRST_WAIT,
    LONGEST_RETRY_AFTER,
    LONGEST_WAIT,
    backoff,
    is_retryable,
    retry_after,
)


def failed(reason: str, **details: Any) -> ProviderError:
    return ProviderError("no", {"provider": "p", "reason": reason} | details)


@pytest.mark.parametrize(
    "reason", ["unreachable", "connect_timeout", "first_token_timeout", "broken_off", "reported"]
)
def test_what_may_pass_by_itself_is_tried_again(reason: str) -> None:
    assert is_retryable(failed(reason))


@pytest.mark.parametrize(
    "reason",
    ["read_timeout", "total_timeout", "too_large", "unusable", "tls", "bad_address", "aborted"],
)
def test_what_would_fail_again_is_not(reason: str) -> None:
    assert not is_retryable(failed(reason))


@pytest.mark.parametrize("reason", ["http_status", "reported"])
@pytest.mark.parametrize(
    ("status", "again"),
    [
        *[(status, True) for status in (408, 429, 500, 502, 503, 504, 520, 529)],
        *[(status, False) for status in (204, 307, 400, 401, 403, 404, 413, 422, 501)],
    ],
)
def test_a_status_says_whether_it_is(reason: str, status: int, again: bool) -> None:
    assert is_retryable(failed(reason, http_status=status)) is again
    assert is_retryable(ProviderTimeout("no", failed(reason, http_status=status).details)) is again


def test_an_empty_account_is_not_filled_by_waiting() -> None:
    error = failed("http_status", http_status=429, provider_code="insufficient_quota")

    assert not is_retryable(error)


@pytest.mark.parametrize("error", [Cancelled(), InvalidData(), LLMChatLinkerError()])
def test_what_the_provider_did_not_do_is_not_tried_again(error: LLMChatLinkerError) -> None:
    assert not is_retryable(error)


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [(3, 3.0), (0.25, 0.25), (0, 0.0), (10**9, LONGEST_RETRY_AFTER)],
)
def test_a_wait_that_the_provider_asked_for_is_bounded(given_: float, seconds: float) -> None:
    assert retry_after(failed("http_status", retry_after=given_)) == seconds


@pytest.mark.parametrize("given_", [None, "3", True, -1, [3]])
def test_a_wait_that_is_none_is_none(given_: Any) -> None:
    assert retry_after(failed("http_status", retry_after=given_)) is None
    assert retry_after(failed("http_status")) is None


@given(st.integers(-5, 10_000))
def test_a_backoff_is_bounded_whatever_the_attempt(attempt: int) -> None:
    assert 0 <= backoff(attempt) <= LONGEST_WAIT


def test_a_backoff_grows_and_is_spread_over_all_of_its_time() -> None:
    for attempt in (1, 2, 3):
        longest = FIRST_WAIT * 2 ** (attempt - 1)
        waits = [backoff(attempt) for _ in range(500)]
        assert max(waits) <= longest
        assert min(waits) < longest / 4 < longest * 3 / 4 < max(waits)
