"""Headers of providers and LLMs: sent, sealed like API keys, and never shown."""

from __future__ import annotations

from typing import Any

import pytest

from llmchatlinker import secrets
from llmchatlinker.settings import get_settings
from llmchatlinker.units.rotation import rotate_api_keys
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.servers.provider import ScriptedProvider

MARK = "tenant-7f3a"
HEADERS = {"X-Tenant": MARK, "HTTP-Referer": "https://example.com"}


def add(cycle: Cycle, provider: ScriptedProvider, headers: dict[str, str]) -> dict[str, Any]:
    added = cycle.do(
        "LLM_PROVIDER_ADD", name="p", api_endpoint=provider.base_url, settings={"headers": headers}
    )
    view: dict[str, Any] = added["provider"]
    return view


def test_headers_are_sent(cycle: Cycle, provider: ScriptedProvider, secret_keys: str) -> None:
    add(cycle, provider, HEADERS)

    cycle.do("LLM_PROVIDER_DISCOVER", provider_id=1)

    sent = provider.requests[0].headers
    assert (sent["x-tenant"], sent["http-referer"]) == (MARK, "https://example.com")


def test_of_headers_only_the_names_are_shown(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str
) -> None:
    view = add(cycle, provider, HEADERS)
    llm = cycle.do("LLM_ADD", provider_id=1, llm_name="m", settings={"headers": {"X-Two": MARK}})
    listed = [cycle.do("LLM_PROVIDER_LIST"), cycle.do("LLM_LIST")]

    assert view["settings"] == {"headers": ["HTTP-Referer", "X-Tenant"]}
    assert llm["llm"]["settings"] == {"headers": ["X-Two"]}
    assert MARK not in str(listed)


def test_a_headers_value_is_nowhere_in_the_database(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str
) -> None:
    settings = {"headers": HEADERS}
    add(cycle, provider, HEADERS)
    cycle.do("LLM_PROVIDER_UPDATE", provider_id=1, settings=settings)
    cycle.do("LLM_ADD", provider_id=1, llm_name="m", settings=settings)
    cycle.do("LLM_UPDATE", llm_id=1, settings=settings)

    assert MARK not in cycle.everything()


def test_a_headers_value_of_a_refused_instruction_is_nowhere_in_the_database(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str
) -> None:
    settings = {"headers": HEADERS}
    cycle.fail("LLM_PROVIDER_ADD", name="p", api_endpoint="no url", settings=settings)
    cycle.fail("LLM_PROVIDER_UPDATE", provider_id=77, settings=settings)
    cycle.fail("LLM_ADD", provider_id=77, llm_name="m", settings=settings)

    assert MARK not in cycle.everything()


def test_without_secret_keys_headers_are_refused(cycle: Cycle, provider: ScriptedProvider) -> None:
    settings = {"headers": HEADERS}
    failed = cycle.fail(
        "LLM_PROVIDER_ADD", name="p", api_endpoint=provider.base_url, settings=settings
    )

    assert failed.code == "configuration"
    assert MARK not in cycle.everything()


def test_the_keys_of_headers_are_rotated_too(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str, configure: Configure
) -> None:
    add(cycle, provider, HEADERS)
    cycle.do("LLM_ADD", provider_id=1, llm_name="m", settings={"headers": {"X-Two": MARK}})
    new = secrets.generate_key()

    configure(secret_keys=f"{new},{secret_keys}")
    rotate_api_keys()
    configure(secret_keys=new)

    rows = cycle.sql("SELECT settings FROM providers UNION ALL SELECT settings FROM llms")
    tokens = [token for (settings,) in rows for token in settings["headers"].values()]
    assert len(tokens) == 3
    assert all(secrets.decrypt(token.encode(), get_settings()) for token in tokens)


@pytest.mark.parametrize("name", ["Authorization", "Content-Length", "Transfer-Encoding", "Host"])
def test_headers_of_the_connections_own_are_refused(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str, name: str
) -> None:
    failed = cycle.fail(
        "LLM_PROVIDER_ADD",
        name="p",
        api_endpoint=provider.base_url,
        settings={"headers": {name: MARK}},
    )

    assert (failed.code, failed.fields) == ("invalid_data", ["settings.headers"])
    assert MARK not in failed.message
