"""A provider where no provider may be: refused when it is added, and when it is called."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/v1", "http://[::1]/v1", "http://localhost"]
)
def test_a_private_endpoint_is_refused_by_decode(
    cycle: Cycle, configure: Configure, address: str
) -> None:
    configure(provider_private_addresses="refuse")

    failed = cycle.fail("LLM_PROVIDER_ADD", name="p", api_endpoint=address)

    assert (failed.code, failed.stage, failed.fields) == (
        "invalid_data",
        "decode",
        ["api_endpoint"],
    )


def test_so_is_one_that_is_put_in_its_place(scene: Scene, configure: Configure) -> None:
    configure(provider_hosts="*.example.com")

    failed = scene.cycle.fail(
        "LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, api_endpoint="https://evil.net/v1"
    )

    assert (failed.code, failed.fields) == ("invalid_data", ["api_endpoint"])


def test_one_that_was_added_before_is_not_called(scene: Scene, configure: Configure) -> None:
    configure(provider_private_addresses="refuse")

    failed = scene.ask_in_vain("Hello")

    assert (failed.code, failed.details["reason"]) == ("provider_error", "bad_address")
    assert "must be a public address" in failed.message
    assert scene.provider.calls == []


@pytest.mark.parametrize("written", ["2130706433", "0x7f.1", "127.1", "llm.example.com"])
def test_a_name_is_judged_by_the_address_that_it_has_when_it_is_called(
    scene: Scene, configure: Configure, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up, port = socket.getaddrinfo, int(scene.provider.base_url.split(":")[2].split("/")[0])

    def rebound(host: Any, *arguments: Any) -> Any:
        if host == "llm.example.com" and socket.AI_NUMERICHOST & (arguments[4:5] or (0,))[0]:
            raise socket.gaierror
        return look_up("127.0.0.1" if host == "llm.example.com" else host, *arguments)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    configure(provider_private_addresses="refuse")
    scene.cycle.do(
        "LLM_PROVIDER_UPDATE",
        provider_id=scene.provider_id,
        api_endpoint=f"http://{written}:{port}/v1",
    )

    assert scene.ask_in_vain("Hello").details["reason"] == "bad_address"
    assert scene.provider.calls == []
    configure(provider_private_addresses="allow")
    assert scene.ask("Hello")["content"] == "You said: Hello"
