"""The forms in which a provider's address may be written."""

from __future__ import annotations

import pytest

from llmchatlinker.providers.openai import base_url


@pytest.mark.parametrize(
    "written",
    [
        "http://host:12500/v1",
        "http://host:12500/v1/",
        "http://host:12500",
        "http://host:12500/",
        "http://host:12500/v1/chat/completions",
        "http://host:12500/v1/chat/completions/",
        "http://host:12500/v1//chat/completions",
    ],
)
def test_a_base_and_a_full_url_lead_to_the_same_place(written: str) -> None:
    assert base_url(written) == "http://host:12500/v1"


@pytest.mark.parametrize(
    ("written", "base"),
    [
        ("https://api.example.com/openai/v2", "https://api.example.com/openai/v2"),
        ("https://api.example.com/api/chat/completions", "https://api.example.com/api"),
        ("http://[::1]:8080", "http://[::1]:8080/v1"),
        ("HTTP://Host/V1", "HTTP://Host/V1"),
    ],
)
def test_another_path_is_left_as_it_is(written: str, base: str) -> None:
    assert base_url(written) == base
