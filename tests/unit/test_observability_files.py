"""The dashboard, the alerts and the table of metrics name what the code has, and are valid."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from llmchatlinker.celery_app import ROOT
from llmchatlinker.telemetry.definitions import ALL, Definition
from tests.fixtures.servers import cannot_test

RULES = ROOT / "ops" / "prometheus"
DASHBOARD = json.loads((ROOT / "ops" / "grafana" / "llmchatlinker.json").read_text())
ALERTS = yaml.safe_load((RULES / "alerts.yml").read_text())["groups"][0]["rules"]
PAGE = (ROOT / "docs" / "observability.md").read_text()

#: Labels that Prometheus itself sets, and that histograms have.
ANYBODYS = {"instance", "job", "le"}


def _in_dashboard() -> Iterator[tuple[str, str]]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "5m")
            yield panel["title"], re.sub(r"\$(instance|provider)", ".*", expression)


EXPRESSIONS = [*_in_dashboard(), *((rule["alert"], rule["expr"]) for rule in ALERTS)]


@pytest.mark.parametrize(("where", "expression"), EXPRESSIONS)
def test_an_expression_is_promql_and_its_metrics_and_labels_are_there(
    where: str, expression: str
) -> None:
    promql_parser.parse(expression)  # raises ValueError
    named = re.findall(r"\bllmchatlinker_\w+", expression)
    assert named, where
    rows = [_definition(name) for name in named]
    labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        labels |= {label.strip() for label in group.split(",")}
    assert labels <= ANYBODYS.union(*(row.labels for row in rows))


def _definition(name: str) -> Definition:
    """Of a metric, by its own name or that of one of a histogram's series."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    found = ALL.get(name) or ALL.get(base)
    assert found is not None, f"there is no metric {name}"
    assert name == found.name or found.kind == "histogram"
    return found


def test_every_metric_is_in_the_dashboard() -> None:
    shown = " ".join(expression for _, expression in _in_dashboard())
    assert [name for name in ALL if name not in shown] == []


def test_the_dashboard_is_as_grafanas_schema_has_it() -> None:
    register_default_plugins()
    # Whatever the typed model does not know is not in what it writes.
    written = json.loads(JSONEncoder().encode(Dashboard.from_json(DASHBOARD)))
    assert list(_lost(DASHBOARD, written, "")) == []


def _lost(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                if value not in (None, "", [], False):
                    yield f"{path}/{key}"
            else:
                yield from _lost(value, theirs[key], f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(one, other, f"{path}/{index}")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def _promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    if program is None:
        cannot_test("promtool", "Debian and Ubuntu have it in the package prometheus")
    done = subprocess.run([program, *arguments], cwd=RULES, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_alerts_fire_when_something_is_wrong_and_not_otherwise() -> None:
    _promtool("check", "rules", "alerts.yml")
    _promtool("test", "rules", "alerts.test.yml")


def test_the_example_configuration_is_one() -> None:
    _promtool("check", "config", "prometheus.yml")


def test_the_page_has_every_metric_with_its_kind_and_labels() -> None:
    rows = re.findall(r"^\| `(llmchatlinker_\w+)` \| (\w+) \| ([^|]*)\|", PAGE, re.MULTILINE)
    told = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == {name: (row.kind, set(row.labels)) for name, row in ALL.items()}


def test_the_page_has_every_alert() -> None:
    assert set(re.findall(r"^\| `(LLMChatLinker\w+)` \|", PAGE, re.MULTILINE)) == {
        rule["alert"] for rule in ALERTS
    }


@pytest.mark.parametrize("row", ALL.values(), ids=lambda row: row.name)
def test_a_metrics_name_says_its_unit_as_prometheus_has_it(row: Definition) -> None:
    assert re.fullmatch(r"llmchatlinker_[a-z]+(_[a-z]+)*", row.name)
    assert row.name.endswith("_total") is (row.kind == "counter")
    assert (row.kind == "histogram") is bool(row.buckets)
    if row.kind == "histogram":
        assert row.name.endswith("_seconds")
    assert not {"user", "user_id", "chat", "chat_id", "instruction", "id"} & set(row.labels)
