"""A real worker with metrics, a textfile and JSON logs: what the documents promise is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.telemetry.definitions import ALL
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import free_ports, scripts
from tests.servers.provider import ScriptedProvider

PROMPT = "a prompt that nobody is to read"
ANSWER = "an answer that nobody is to read"
PROFILE = "a profile that nobody is to read"
KEY = "sk-nobody-is-to-read"

#: As many as ``_everything`` submits.
INSTRUCTIONS = 8

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _samples(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _value(samples: Samples, name: str, **labels: str) -> float:
    return samples[f"llmchatlinker_{name}", frozenset(labels.items())]


def _stored(samples: Samples) -> float:
    """How many have gone through their last stage; it is counted after its client has been told."""
    at = frozenset({("unit", "database"), ("stage", "store")})
    return samples.get(("llmchatlinker_stage_queue_seconds_count", at), 0.0)


def _open(samples: Samples) -> float | None:
    """How many instructions are not final, once that has been read."""
    name = "llmchatlinker_open_instructions"
    counts = [value for (found, _), value in samples.items() if found == name]
    return sum(counts) if counts else None


def test_a_worker_shows_what_it_did_and_no_text(
    cycle: Cycle,
    provider: ScriptedProvider,
    secret_keys: str,
    worker: StartWorker,
    tmp_path: Path,
) -> None:
    process = worker(
        metrics_port=free_ports(1)[0],
        metrics_textfile=tmp_path / "%n.prom",
        log_format="json",
        log_level="INFO",
        sweep_interval=0.2,
        provider_retries=0,
    )
    client = LLMChatLinkerClient()
    _everything(client, provider)

    def scrape() -> str:
        url = re.search(r"Metrics at (http://127\.0\.0\.1:\d+/metrics)", process.log_text())
        return "" if url is None else requests.get(url[1], timeout=30).text

    # What follows a stage's commit may come after its client has the envelope, and what is open is
    # read every sweep: it counts until the next.
    texts: list[str] = []

    def told() -> bool:
        texts.append(scrape())
        found = _samples(texts[-1])
        return _stored(found) == INSTRUCTIONS and _open(found) == 0

    eventually(told)
    text = texts[-1]
    samples = _samples(text)
    _check_metrics(samples)
    textfile = tmp_path / "test0.prom"
    eventually(lambda: textfile.exists() and "LLM_RESPONSE_GENERATE" in textfile.read_text())
    assert {name for name, _ in _samples(textfile.read_text())} >= {
        "llmchatlinker_stages_total",
        "llmchatlinker_sweeps_total",
        "process_resident_memory_bytes",
    }

    process.stop(30)
    assert not textfile.exists()
    log = process.log_text()
    _check_log(log)
    for secret in (PROMPT, ANSWER, PROFILE, KEY, secret_keys):
        assert secret not in text
        assert secret not in log


def _everything(client: LLMChatLinkerClient, provider: ScriptedProvider) -> None:
    """One that succeeds, one that decode and one that execute refuses, two generations."""
    provider.script(scripts.answer(ANSWER), scripts.error(500, PROMPT))
    assert client.create_user("ada", profile=PROFILE)["status"] == "success"
    assert client.create_user("ada", profile=PROFILE)["status"] == "error"
    assert client.run("USER_CREATE", username=[PROMPT])["status"] == "error"
    assert client.create_chat("c", usernames=["ada"])["status"] == "success"
    added = client.add_llm_provider("scripted", provider.base_url, api_key=KEY)
    assert added["status"] == "success"
    prices = {"price": {"prompt": 1000.0, "completion": 1000.0}}
    llm = {"provider_name": "scripted", "llm_name": "echo"}
    assert client.run("LLM_ADD", settings=prices, **llm)["status"] == "success"
    turn = {"user_id": 1, "chat_id": 1, "user_input": PROMPT} | llm
    assert client.run("LLM_RESPONSE_GENERATE", **turn)["status"] == "success"
    assert client.run("LLM_RESPONSE_GENERATE", **turn)["status"] == "error"


def _check_metrics(samples: Samples) -> None:
    names = {name for name, _ in samples if name.startswith("llmchatlinker_")}
    parts = {"_bucket", "_sum", "_count"}
    known = {n + part for n, row in ALL.items() for part in parts if row.kind == "histogram"}
    assert names <= known | set(ALL)
    user = {"type": "USER_CREATE", "unit": "user", "stage": "execute"}
    assert _value(samples, "stages_total", **user, outcome="success") == 1
    assert _value(samples, "stages_total", **user, outcome="conflict") == 1
    refused = {"type": "USER_CREATE", "unit": "control", "stage": "decode"}
    assert _value(samples, "stages_total", **refused, outcome="invalid_data") == 1
    assert _value(samples, "stage_duration_seconds_count", **refused) == 3
    assert _stored(samples) == INSTRUCTIONS
    for code, count in (("success", 1), ("conflict", 1), ("invalid_data", 1)):
        assert _value(samples, "instructions_total", type="USER_CREATE", outcome=code) == count
    assert _value(samples, "instruction_duration_seconds_count", type="USER_CREATE") == 3
    echo = {"provider": "scripted", "llm": "echo"}
    assert _value(samples, "attempts_total", **echo, outcome="answered") == 1
    assert _value(samples, "attempts_total", **echo, outcome="provider_error") == 1
    assert _value(samples, "http_errors_total", **echo, status="500") == 1
    assert _value(samples, "attempt_duration_seconds_count", **echo) == 2
    assert _value(samples, "first_token_seconds_count", **echo) == 1
    tokens = _value(samples, "tokens_total", **echo, kind="prompt")
    tokens += _value(samples, "tokens_total", **echo, kind="completion")
    assert _value(samples, "cost_total", **echo) == tokens / 1000
    assert _value(samples, "worker_queue", queue="llm.generate") == 1
    assert _value(samples, "worker_slots") == 8
    assert _value(samples, "database_connections_limit") == 10
    assert _value(samples, "dead_letters_kept") == 0


def _check_log(log: str) -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    stages = [line for line in lines if line["logger"] == "llmchatlinker.stage"]
    told = [(line["type"], line["stage"], line["unit"], line["outcome"]) for line in stages]
    assert told.count(("USER_CREATE", "decode", "control", "invalid_data")) == 1
    assert told.count(("USER_CREATE", "execute", "user", "conflict")) == 1
    assert told.count(("LLM_RESPONSE_GENERATE", "execute", "llm", "provider_error")) == 1
    assert told.count(("LLM_RESPONSE_GENERATE", "store", "database", "success")) == 1
    assert len(stages) == 8 * 3
    assert [line for line in stages if line["attempt"] != 1 or line["ms"] <= 0] == []
    assert len({line["instruction_id"] for line in stages}) == 8
    assert not [line for line in lines if "succeeded" in line["message"]]
