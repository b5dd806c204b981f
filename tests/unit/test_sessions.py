"""Connections of providers: kept per provider, and not for ever more of them."""

from __future__ import annotations

from llmchatlinker.providers import http
from llmchatlinker.providers.base import Endpoint


def endpoint(number: int) -> Endpoint:
    return Endpoint(f"provider {number}", f"http://127.0.0.1:{number}/v1", None, 1, 1, 1, 1)


def test_the_sessions_of_those_used_last_are_kept() -> None:
    first = http._kept_for(endpoint(1))

    for number in range(2, http.SESSIONS + 1):
        http._kept_for(endpoint(number))
        assert http._kept_for(endpoint(1)) is first
    for number in range(1000, 1000 + http.SESSIONS):
        http._kept_for(endpoint(number))

    assert len(http._kept) == http.SESSIONS
    assert http._kept_for(endpoint(1)) is not first
