"""The LLM Manage Unit's first half: providers, their keys, and their LLMs."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from llmchatlinker import secrets
from llmchatlinker.settings import get_settings
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.threads import eventually
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider

URL = "http://localhost:12500/v1/chat/completions"
KEY = "sk-very-secret-key"


@pytest.fixture
def vllm(cycle: Cycle) -> int:
    added = cycle.do("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL)
    provider_id: int = added["provider"]["provider_id"]
    return provider_id


def stored_key(cycle: Cycle, provider_id: int) -> str:
    ((token,),) = cycle.sql("SELECT api_key FROM providers WHERE id = :id", id=provider_id)
    return secrets.decrypt(bytes(token), get_settings())


# --- providers ----------------------------------------------------------------------------------


def test_a_provider_is_added(cycle: Cycle) -> None:
    provider = cycle.do("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL)["provider"]

    assert provider.pop("created_at") == provider.pop("updated_at")
    assert provider == {
        "provider_id": 1,
        "name": "vLLM",
        "api_endpoint": URL,
        "kind": "openai",
        "has_api_key": False,
        "settings": {},
    }


def test_an_api_key_is_kept_and_never_shown(cycle: Cycle, secret_keys: str) -> None:
    added = cycle.do("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL, api_key=KEY)
    listed = cycle.do("LLM_PROVIDER_LIST")

    assert added["provider"]["has_api_key"] is True
    assert KEY not in str(added) + str(listed)
    assert stored_key(cycle, 1) == KEY


def test_an_api_key_is_nowhere_in_the_database(cycle: Cycle, secret_keys: str) -> None:
    added = cycle.do("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL, api_key=KEY)
    cycle.do(
        "LLM_PROVIDER_UPDATE", provider_id=added["provider"]["provider_id"], api_key=KEY + "-2"
    )

    assert KEY not in cycle.everything()


def test_an_api_key_of_a_refused_instruction_is_nowhere_in_the_database(
    cycle: Cycle, secret_keys: str, vllm: int
) -> None:
    cycle.fail("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL, api_key=KEY)
    cycle.fail("LLM_PROVIDER_ADD", name="other", api_endpoint="no url", api_key=KEY)
    cycle.fail("LLM_PROVIDER_UPDATE", provider_id=77, api_key=KEY)

    assert KEY not in cycle.everything()


def test_without_secret_keys_an_api_key_is_refused(cycle: Cycle) -> None:
    failed = cycle.fail("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL, api_key=KEY)

    assert failed.code == "configuration"
    assert "LLMCHATLINKER_SECRET_KEYS" in failed.message
    assert cycle.count("providers") == 0


def test_two_providers_of_one_name_are_a_conflict(cycle: Cycle, vllm: int) -> None:
    failed = cycle.fail("LLM_PROVIDER_ADD", name="vLLM", api_endpoint=URL)

    assert (failed.code, failed.details) == ("conflict", {"field": "name"})


@pytest.mark.parametrize("kind", ["openai", "anthropic", "ollama"])
def test_a_provider_of_each_kind_is_asked_for_its_models(
    cycle: Cycle, provider: ScriptedProvider, kind: str
) -> None:
    url = provider.base_url if kind == "openai" else provider.root_url
    added = cycle.do("LLM_PROVIDER_ADD", name="p", api_endpoint=url, kind=kind)["provider"]

    found = cycle.do("LLM_PROVIDER_DISCOVER", provider_id=added["provider_id"])

    assert (added["kind"], found) == (kind, {"models": ["echo"]})


def test_an_update_changes_what_it_names_and_nothing_else(
    cycle: Cycle, vllm: int, secret_keys: str
) -> None:
    (before,) = cycle.do("LLM_PROVIDER_LIST")["providers"]
    settings = {"timeouts": {"total": 3}, "parameters": {"temperature": 0}}

    after = cycle.do("LLM_PROVIDER_UPDATE", provider_id=vllm, settings=settings)["provider"]

    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before | {"settings": settings}


def test_a_new_api_key_replaces_the_old_one(cycle: Cycle, vllm: int, secret_keys: str) -> None:
    for key in (KEY, KEY + "-2"):
        changed = cycle.do("LLM_PROVIDER_UPDATE", provider_id=vllm, api_key=key)
        assert changed["provider"]["has_api_key"] is True

    assert stored_key(cycle, vllm) == KEY + "-2"


def test_an_empty_api_key_takes_the_old_one_away(cycle: Cycle, vllm: int, secret_keys: str) -> None:
    cycle.do("LLM_PROVIDER_UPDATE", provider_id=vllm, api_key=KEY)

    changed = cycle.do("LLM_PROVIDER_UPDATE", provider_id=vllm, api_key="")

    assert changed["provider"]["has_api_key"] is False
    assert cycle.count("providers", "api_key IS NULL") == 1


def test_an_llm_that_is_added_meanwhile_is_not_deleted_without_force(
    cycle: Cycle, vllm: int
) -> None:
    deleting = cycle.decoded("LLM_PROVIDER_DELETE", provider_id=vllm)
    thread = threading.Thread(target=cycle.execute, args=[deleting])
    with cycle.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO llms (provider_id, llm_name) VALUES (%(p)s, 'm')", {"p": vllm}
        )
        thread.start()
        waits = "datname = current_database() AND wait_event_type = 'Lock'"
        eventually(lambda: cycle.count("pg_stat_activity", waits) == 1)
    thread.join()
    cycle.store(deleting)

    failed = failure(cycle.envelope(deleting))
    assert (failed.code, failed.details["llms"]) == ("conflict", 1)


def test_a_provider_with_llms_is_only_deleted_by_force(cycle: Cycle, vllm: int) -> None:
    cycle.do("LLM_ADD", provider_id=vllm, llm_name="m")

    failed = cycle.fail("LLM_PROVIDER_DELETE", provider_id=vllm)

    assert (failed.code, failed.details["llms"]) == ("conflict", 1)
    assert cycle.do("LLM_PROVIDER_DELETE", provider_id=vllm, force=True) == {}
    assert cycle.do("LLM_LIST")["llms"] == []
    assert cycle.do("LLM_PROVIDER_LIST")["providers"] == []


def test_a_provider_without_llms_is_deleted(cycle: Cycle, vllm: int) -> None:
    assert cycle.do("LLM_PROVIDER_DELETE", provider_id=vllm) == {}


@pytest.mark.parametrize(
    "name",
    [
        "LLM_PROVIDER_UPDATE",
        "LLM_PROVIDER_DELETE",
        "LLM_PROVIDER_DISCOVER",
        "LLM_LIST_BY_PROVIDER",
    ],
)
def test_a_provider_that_is_not_there_is_not_found(cycle: Cycle, name: str) -> None:
    failed = cycle.fail(name, provider_id=77)

    assert (failed.code, failed.stage) == ("not_found", "execute")
    assert failed.details == {"field": "provider_id", "value": 77}


# --- discovery ----------------------------------------------------------------------------------


def test_a_provider_is_asked_for_its_models(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str
) -> None:
    provider.models = ["zeta", "alpha"]
    url = provider.base_url
    added = cycle.do("LLM_PROVIDER_ADD", name="p", api_endpoint=url, api_key=KEY)["provider"]

    found = cycle.do("LLM_PROVIDER_DISCOVER", provider_id=added["provider_id"])

    assert found == {"models": ["alpha", "zeta"]}
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_provider_that_does_not_say_its_models_is_a_provider_error(
    cycle: Cycle, provider: ScriptedProvider
) -> None:
    provider.models_script = scripts.error(500)
    cycle.do("LLM_PROVIDER_ADD", name="p", api_endpoint=provider.base_url)

    failed = cycle.fail("LLM_PROVIDER_DISCOVER", provider_id=1)

    assert (failed.code, failed.stage) == ("provider_error", "execute")
    assert len(provider.requests) == 1


def test_a_key_that_nothing_opens_any_more_says_so_and_asks_nobody(
    cycle: Cycle, provider: ScriptedProvider, secret_keys: str, configure: Configure
) -> None:
    cycle.do("LLM_PROVIDER_ADD", name="p", api_endpoint=provider.base_url, api_key=KEY)
    configure(secret_keys=secrets.generate_key())

    failed = cycle.fail("LLM_PROVIDER_DISCOVER", provider_id=1)

    assert failed.code == "configuration"
    assert provider.requests == []


# --- LLMs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [{"provider_id": 1}, {"provider_name": "vLLM"}])
def test_an_llm_is_added_by_its_providers_id_or_name(
    cycle: Cycle, vllm: int, by: dict[str, Any]
) -> None:
    llm = cycle.do("LLM_ADD", llm_name="meta-llama/Meta-Llama-3-8B-Instruct", **by)["llm"]

    assert llm.pop("created_at") == llm.pop("updated_at")
    assert llm == {
        "llm_id": 1,
        "provider_id": vllm,
        "llm_name": "meta-llama/Meta-Llama-3-8B-Instruct",
        "settings": {},
    }


def test_a_providers_id_and_name_must_agree(cycle: Cycle, vllm: int) -> None:
    cycle.do("LLM_PROVIDER_ADD", name="other", api_endpoint=URL)

    failed = cycle.fail("LLM_ADD", provider_id=vllm, provider_name="other", llm_name="m")

    assert (failed.code, failed.fields) == ("invalid_data", ["provider_name"])
    assert cycle.do("LLM_ADD", provider_id=vllm, provider_name="vLLM", llm_name="m")


@pytest.mark.parametrize(
    ("by", "stage"), [({"provider_id": 77}, "execute"), ({"provider_name": "no"}, "decode")]
)
def test_an_llm_of_nobody_is_not_added(
    cycle: Cycle, vllm: int, by: dict[str, Any], stage: str
) -> None:
    failed = cycle.fail("LLM_ADD", llm_name="m", **by)

    assert (failed.code, failed.stage) == ("not_found", stage)
    assert failed.details["field"] == next(iter(by))


def test_an_llms_name_is_unique_per_provider(cycle: Cycle, vllm: int) -> None:
    cycle.do("LLM_PROVIDER_ADD", name="other", api_endpoint=URL)
    cycle.do("LLM_ADD", provider_id=vllm, llm_name="m")

    failed = cycle.fail("LLM_ADD", provider_id=vllm, llm_name="m")

    assert (failed.code, failed.details) == ("conflict", {"field": "llm_name"})
    assert cycle.do("LLM_ADD", provider_name="other", llm_name="m")["llm"]["llm_id"]


def test_an_llm_is_updated(cycle: Cycle, vllm: int) -> None:
    before = cycle.do("LLM_ADD", provider_id=vllm, llm_name="m")["llm"]
    settings = {"context_window": 4096, "price": {"prompt": 0.5, "completion": 1.5}}

    after = cycle.do("LLM_UPDATE", llm_id=before["llm_id"], llm_name="n", settings=settings)["llm"]

    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before | {"llm_name": "n", "settings": settings}


def test_an_llm_cannot_take_anothers_name(cycle: Cycle, vllm: int) -> None:
    for name in ("m", "n"):
        cycle.do("LLM_ADD", provider_id=vllm, llm_name=name)

    assert cycle.fail("LLM_UPDATE", llm_id=2, llm_name="m").code == "conflict"


def test_an_llm_is_deleted(cycle: Cycle, vllm: int) -> None:
    cycle.do("LLM_ADD", provider_id=vllm, llm_name="m")

    assert cycle.do("LLM_DELETE", llm_id=1) == {}
    assert cycle.do("LLM_LIST") == {"llms": [], "next": None}


@pytest.mark.parametrize("name", ["LLM_UPDATE", "LLM_DELETE"])
def test_an_llm_that_is_not_there_is_not_found(cycle: Cycle, name: str) -> None:
    failed = cycle.fail(name, llm_id=77)

    assert (failed.code, failed.details) == ("not_found", {"field": "llm_id", "value": 77})


def test_llms_are_listed_for_all_and_for_one_provider(cycle: Cycle, vllm: int) -> None:
    cycle.do("LLM_PROVIDER_ADD", name="other", api_endpoint=URL)
    for provider_name, llm_name in (("vLLM", "a"), ("other", "b"), ("vLLM", "c")):
        cycle.do("LLM_ADD", provider_name=provider_name, llm_name=llm_name)

    def names(name: str, **data: Any) -> list[str]:
        return [llm["llm_name"] for llm in cycle.do(name, **data)["llms"]]

    assert names("LLM_LIST") == ["a", "b", "c"]
    assert names("LLM_LIST_BY_PROVIDER", provider_id=vllm) == ["a", "c"]
