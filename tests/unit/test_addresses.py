"""The forms in which a provider's address may be written."""

from __future__ import annotations

import pytest

from llmchatlinker.providers import openai

CHAT = "/chat/completions"


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
        "http://host:12500/v1#there",
    ],
)
def test_a_base_and_a_full_url_lead_to_the_same_place(written: str) -> None:
    assert openai.address(written, CHAT) == "http://host:12500/v1/chat/completions"
    assert openai.address(written, "/models") == "http://host:12500/v1/models"


@pytest.mark.parametrize(
    ("written", "models"),
    [
        ("https://api.example.com/openai/v2", "https://api.example.com/openai/v2/models"),
        ("https://api.example.com/api/chat/completions", "https://api.example.com/api/models"),
        ("http://[::1]:8080", "http://[::1]:8080/v1/models"),
        ("HTTP://Host/V1", "HTTP://Host/V1/models"),
    ],
)
def test_another_path_is_left_as_it_is(written: str, models: str) -> None:
    assert openai.address(written, "/models") == models


def test_a_query_stays_at_the_end() -> None:
    written = "https://host/deployments/d/chat/completions?api-version=1"

    assert openai.address(written, CHAT) == written
    assert openai.address(written, "/models") == "https://host/deployments/d/models?api-version=1"
