"""The hook of a stage, its line in the log, bounded labels, the endpoint, a client's registry."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest

from llmchatlinker.errors import NotFound
from llmchatlinker.results.wakeups import Wakeups
from llmchatlinker.settings import Settings, use_settings
from llmchatlinker.telemetry import register, sweeps, switch
from llmchatlinker.telemetry.exposition import PORTS, Exposition
from llmchatlinker.telemetry.logs import JsonFormatter, NotStages
from llmchatlinker.telemetry.metrics import PAIRS, Metrics
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.telemetry.stages import ObservedStage
from llmchatlinker.topology import DECODE_TASK, STORE_TASK

ID = uuid.UUID(int=7)
EXECUTE_TASK = "llmchatlinker.user.user_create"


class Request(dict[str, Any]):
    """Celery's, as far as a stage looks at it."""

    def __init__(self, chain: list[Any] | None = None, **headers: Any) -> None:
        super().__init__(headers)
        self.chain = chain
        self.delivery_info: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _nothing_counted() -> Iterator[None]:
    use_settings(Settings())
    yield
    switch.switch_off()
    use_settings(None)


def _told(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    (record,) = [r for r in caplog.records if r.name == "llmchatlinker.stage"]
    return json.loads(JsonFormatter().format(record))


def test_a_stages_line_has_what_it_was_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    assert ObservedStage(EXECUTE_TASK).run(ID, Request(), lambda: True)

    line = _told(caplog)
    assert line.pop("ms") >= 0
    assert line.pop("time").endswith("Z") and line.pop("process")
    assert line == {
        "level": "INFO",
        "logger": "llmchatlinker.stage",
        "message": "execute of USER_CREATE: success",
        "stage": "execute",
        "instruction_id": str(ID),
        "type": "USER_CREATE",
        "unit": "user",
        "attempt": 1,
        "outcome": "success",
    }
    assert caplog.messages[0].startswith(
        f"stage=execute instruction={ID} type=USER_CREATE unit=user attempt=1 outcome=success ms="
    )


def test_what_a_stage_notes_is_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    def work() -> bool:
        notes.type, notes.outcome = "USER_GET", "not_found"
        return True

    ObservedStage(DECODE_TASK).run(ID, Request(), work)

    line = _told(caplog)
    assert (line["type"], line["unit"], line["outcome"]) == ("USER_GET", "control", "not_found")


@pytest.mark.parametrize(
    ("error", "outcome"), [(NotFound("a user's words"), "not_found"), (KeyError("words"), "failed")]
)
def test_a_stage_that_raises_is_told_of_without_words(
    error: Exception, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def work() -> bool:
        raise error

    with pytest.raises(type(error)):
        ObservedStage(STORE_TASK).run(ID, Request(), work)

    assert _told(caplog)["outcome"] == outcome
    assert "words" not in caplog.text


def test_a_stage_says_to_the_next_when_it_was_published() -> None:
    counters = switch.switch_on()
    chain = [{"options": {"headers": {"kept": 1}}}]

    ObservedStage(EXECUTE_TASK).run(ID, Request(chain), lambda: True)
    headers = chain[0]["options"]["headers"]
    ObservedStage(STORE_TASK).run(ID, Request(**headers), lambda: True)

    assert headers["kept"] == 1
    text = generate_latest(counters.registry).decode()
    assert 'stage_queue_seconds_count{stage="store",unit="database"} 1.0' in text


@pytest.mark.parametrize("strange", ["yesterday", None, True, 10**400, [1], -1e308, float("-inf")])
def test_a_strange_publishing_time_is_nobodys_problem(strange: Any) -> None:
    counters = switch.switch_on()

    assert ObservedStage(STORE_TASK).run(ID, Request(published_at=strange), lambda: True)

    assert "stage_queue_seconds_count{" not in generate_latest(counters.registry).decode()


def test_with_everything_off_neither_package_is_loaded() -> None:
    program = """
import sys, uuid
from llmchatlinker.telemetry.stages import ObservedStage
import llmchatlinker.client, llmchatlinker.sweeper
class Request(dict):
    chain, delivery_info = None, {}
ObservedStage("llmchatlinker.control.decode").run(uuid.uuid4(), Request(), lambda: True)
print([name for name in ("prometheus_client", "opentelemetry") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


# --- labels -----------------------------------------------------------------------------------------


def test_providers_and_llms_beyond_a_number_count_as_other() -> None:
    counters = Metrics()

    for number in range(10 * PAIRS):
        counters.attempt("p", f"llm {number}", "answered")
        counters.cooldown(f"provider {number}")

    text = generate_latest(counters.registry).decode()
    assert text.count("llmchatlinker_attempts_total{") <= 2 * PAIRS + 1
    assert 'attempts_total{llm="other",outcome="answered",provider="other"}' in text
    assert 'cooldowns_total{provider="other"}' in text


def test_a_type_that_is_not_in_the_set_counts_as_unknown() -> None:
    counters = Metrics()

    counters.stage("a user's words", "control", "decode", "unknown_instruction", 0.1, None)
    counters.end("a user's words", "unknown_instruction", 0.1)

    text = generate_latest(counters.registry).decode()
    assert "words" not in text
    assert text.count('type="unknown"') > 2


# --- where they are shown -----------------------------------------------------------------------------


def test_a_clients_registry_has_our_metrics_once() -> None:
    registry = CollectorRegistry()

    register(registry)
    register(registry)

    text = generate_latest(registry).decode()
    assert text.count("llmchatlinker_build_info{") == 1
    assert text.count("# TYPE llmchatlinker_stages_total counter") == 1


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Iterator[Exposition]:
    """A worker's endpoint; ended afterwards."""
    caplog.set_level("INFO")
    made = Exposition("test@localhost")
    yield made
    made.stop()


def test_a_port_that_is_taken_leads_to_the_next(
    shown: Exposition, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        use_settings(Settings(metrics_port=port))
        shown.start()

    (url,) = [message.split()[-1] for message in caplog.messages if "Metrics at" in message]
    assert int(url.split(":")[2].split("/")[0]) > port
    assert "llmchatlinker_build_info" in requests.get(url, timeout=10).text


def test_without_any_port_a_worker_goes_on_and_says_so(
    shown: Exposition, caplog: pytest.LogCaptureFixture
) -> None:
    use_settings(Settings(metrics_port=9464, metrics_host="192.0.2.1"))  # nobody's address

    shown.start()

    assert [m for m in caplog.messages if m.startswith(f"No metrics: none of the {PORTS} ports")]


# --- Celery's lines, results, the sweeper -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "level", "logged"),
    [
        (EXECUTE_TASK, logging.INFO, False),
        (EXECUTE_TASK, logging.ERROR, True),
        ("a.users.own.task", logging.INFO, True),
    ],
)
def test_celerys_line_about_a_stages_end_is_left_out_and_no_other(
    name: str, level: int, logged: bool
) -> None:
    args = ({"name": name, "id": "1"},)
    record = logging.LogRecord("celery.app.trace", level, "", 0, "Task %(name)s", args, None)

    assert NotStages().filter(record) is logged


def test_results_are_counted_by_what_found_them() -> None:
    meta = {"ended": True}
    waiting = Wakeups(lambda ids: dict.fromkeys(ids, meta), lambda ids, queue: None)
    waiting._waiting = {"a": [lambda meta: None], "b": []}
    waiting._cause = "fallback"

    waiting._look(["a", "b"])

    assert waiting.counts == {("result_reads", "fallback"): 1, ("results", "fallback"): 1}


def test_a_sweepers_round_is_counted_by_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rounds", "done", "letters"):
        monkeypatch.setattr(sweeps, name, type(sweeps.rounds)())

    sweeps.note_round({"expired": 2, "purged events": 1, "dead letters kept": 3}, 0.1)
    sweeps.note_round({}, 0.1)
    sweeps.note_round(None, 0.1)

    assert sweeps.rounds == {"done": 1, "idle": 1, "failed": 1}
    assert sweeps.done == {"expired": 2, "purged_events": 1}
    assert sweeps.letters == {"kept": 3}
