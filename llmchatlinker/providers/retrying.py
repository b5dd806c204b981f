"""Which failures of a call are worth another one, and when."""

from __future__ import annotations

import random

from llmchatlinker.errors import LLMChatLinkerError, ProviderError

#: Seconds before the first repetition, at most; it doubles from there up to the longest.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
#: A provider that wants to be left alone for longer is as good as gone.
LONGEST_RETRY_AFTER = 3_600.0

_REASONS = frozenset({"unreachable", "connect_timeout", "first_token_timeout", "broken_off"})
#: 501 and 505 say that it will never be able to.
_STATUSES = frozenset({408, 429, *range(500, 600)} - {501, 505})
#: A 429 or a 5xx that waiting does not mend.
_HOPELESS = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


def is_retryable(error: LLMChatLinkerError) -> bool:
    """Whether the same call, made again, may well succeed.

    That nothing of an answer was shown yet is for the caller to know. A timeout between two pieces,
    or of the whole answer, is none: the next try would take as long, and be billed as well.
    """
    if not isinstance(error, ProviderError):
        return False
    if error.details.get("provider_code") in _HOPELESS:
        return False
    status = error.details.get("http_status")
    reason = error.details.get("reason")
    if reason == "http_status" or (reason == "reported" and status is not None):
        return status in _STATUSES
    return reason in _REASONS or reason == "reported"


def retry_after(error: LLMChatLinkerError) -> float | None:
    """Seconds that the provider asked to wait; None where it did not ask."""
    seconds = error.details.get("retry_after")
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
        return None
    return min(float(seconds), LONGEST_RETRY_AFTER)


def backoff(attempt: int) -> float:
    """Seconds to wait behind the failed attempt of that number, from 1: exponential, full jitter.

    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(max(attempt, 1) - 1, 30))
    return random.uniform(0.0, longest)
