"""Settings of providers and LLMs take effect: the nearer one, and of headers and timeouts both."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.configuration import Configure
from tests.fixtures.scenes import Scene
from tests.servers import scripts


def settle(
    scene: Scene, *, provider: dict[str, Any] | None = None, llm: dict[str, Any] | None = None
) -> None:
    """Set what the provider and the LLM are to be called with."""
    if provider is not None:
        scene.cycle.do("LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, settings=provider)
    if llm is not None:
        scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings=llm)


@pytest.mark.parametrize(
    ("of_provider", "of_llm", "streamed"),
    [({}, {}, True), ({"stream": False}, {}, False), ({"stream": False}, {"stream": True}, True)],
)
def test_an_answer_is_asked_for_in_pieces_unless_a_setting_says_not_to(
    scene: Scene, of_provider: dict[str, Any], of_llm: dict[str, Any], streamed: bool
) -> None:
    settle(scene, provider=of_provider, llm=of_llm)

    assert scene.ask("Hello")["content"] == "You said: Hello"
    assert scene.provider.calls[0].body["stream"] is streamed


def test_usage_is_not_asked_for_where_a_setting_says_so(scene: Scene) -> None:
    settle(scene, provider={"include_usage": False})

    assert scene.ask("Hello")["usage"]["total_tokens"] is None
    assert "stream_options" not in scene.provider.calls[0].body


def test_headers_of_both_are_sent_and_the_llms_go_first(scene: Scene, secret_keys: str) -> None:
    settle(
        scene,
        provider={"headers": {"X-One": "1", "X-Two": "2"}},
        llm={"headers": {"x-two": "3"}},
    )

    scene.ask("Hello")

    sent = scene.provider.calls[0].headers
    assert (sent["x-one"], sent["x-two"]) == ("1", "3")


@pytest.mark.parametrize("where", ["provider", "llm"])
def test_a_first_token_has_the_time_of_the_settings(scene: Scene, where: str) -> None:
    settle(scene, **{where: {"timeouts": {"first_token": 0.2}, "retries": 0}})
    scene.provider.otherwise = scripts.after(15, scripts.echo)

    failed = scene.ask_in_vain("Hello")

    assert (failed.code, failed.details["reason"]) == ("provider_timeout", "first_token_timeout")


def test_timeouts_that_the_llm_leaves_out_are_the_providers(scene: Scene) -> None:
    settle(
        scene,
        provider={"timeouts": {"first_token": 0.2}, "retries": 0},
        llm={"timeouts": {"total": 30}},
    )
    scene.provider.otherwise = scripts.after(15, scripts.echo)

    assert scene.ask_in_vain("Hello").details["reason"] == "first_token_timeout"


def test_what_neither_says_is_the_processs(scene: Scene, configure: Configure) -> None:
    settle(scene, provider={"retries": 0})
    configure(provider_first_token_timeout=0.2)
    scene.provider.otherwise = scripts.after(15, scripts.echo)

    assert scene.ask_in_vain("Hello").details["reason"] == "first_token_timeout"
