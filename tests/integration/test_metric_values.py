"""What goes wrong with providers and messages, brought about, and its metrics by value."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from llmchatlinker.providers import retrying
from llmchatlinker.sweeper import sweep
from llmchatlinker.telemetry import register, sweeps, switch
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.integration.test_dead_letters import die
from tests.integration.test_leases import claimed
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider

ECHO = {"provider": "scripted", "llm": "echo"}


@pytest.fixture
def counted() -> Iterator[CollectorRegistry]:
    """What this process counts from now on."""
    yield switch.switch_on().registry
    switch.switch_off()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float:
    """A sample's value; 0 where there is none."""
    text = generate_latest(registry).decode()
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return sum(s.value for s in samples if (s.name, s.labels) == (f"llmchatlinker_{name}", labels))


def test_calls_that_are_made_again_are_counted(
    scene: Scene,
    counted: CollectorRegistry,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(provider_retries=2)
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)
    scene.provider.script(scripts.error(500), scripts.error(503))

    scene.ask("Hello")

    assert value(counted, "retries_total", **ECHO) == 2
    assert value(counted, "attempts_total", **ECHO, outcome="provider_error") == 2
    assert value(counted, "attempts_total", **ECHO, outcome="answered") == 1
    assert value(counted, "http_errors_total", **ECHO, status="503") == 1
    assert value(counted, "fallbacks_total", **ECHO) == 0


def test_calls_of_a_fallback_are_counted_as_its_own(
    scene: Scene, counted: CollectorRegistry
) -> None:
    with ScriptedProvider() as second:
        scene.cycle.do("LLM_PROVIDER_ADD", name="second", api_endpoint=second.base_url)
        spare = scene.cycle.do("LLM_ADD", provider_name="second", llm_name="spare")["llm"]
        scene.provider.script(scripts.error(401))

        scene.ask("Hello", fallbacks=[spare["llm_id"]])

    assert value(counted, "fallbacks_total", provider="second", llm="spare") == 1
    assert value(counted, "fallbacks_total", **ECHO) == 0
    assert value(counted, "retries_total", provider="second", llm="spare") == 0


def test_the_beginnings_of_cooldowns_are_counted(
    scene: Scene, counted: CollectorRegistry, configure: Configure
) -> None:
    configure(cooldown_failures=2, cooldown=30.0)
    scene.provider.script(*[scripts.error(500)] * 2)

    scene.ask_in_vain("Hello")
    assert value(counted, "cooldowns_total", provider="scripted") == 0
    scene.ask_in_vain("Hello")
    assert value(counted, "cooldowns_total", provider="scripted") == 1


def test_a_call_whose_worker_died_is_counted_as_in_doubt_once(
    scene: Scene, counted: CollectorRegistry
) -> None:
    instruction_id = claimed(scene, "-1 second")

    scene.cycle.finish(instruction_id, "execute")
    scene.cycle.execute(instruction_id)

    assert value(counted, "attempts_total", **ECHO, outcome="in_doubt") == 1


def test_dead_letters_are_counted_by_what_became_of_them(cycle: Cycle) -> None:
    registry = CollectorRegistry()
    register(registry)
    before = value(registry, "dead_letters_total", became="republished")
    die(cycle, cycle.decoded("USER_CREATE", username="ada"))

    sweeps.note_round(sweep(), 0.1)

    assert value(registry, "dead_letters_total", became="republished") == before + 1
