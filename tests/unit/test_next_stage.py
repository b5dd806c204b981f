"""A chain's next step as a stage gives it to Celery's tracer: straight to publishing, if it is plain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmchatlinker.topology import STORE_TASK

ROOT = Path(__file__).resolve().parents[2]

#: Asked of a process of its own, which has loaded a worker's tasks as this one has not.
PROGRAM = """
import json, sys
from celery.canvas import signature
from llmchatlinker import app
app.loader.import_default_modules()
base = sys.modules["llmchatlinker_workers.base"]
app.tasks["llmchatlinker.database.store"].apply_async = lambda args, **options: [args, options]
@app.task(name="mine")
def mine(given):
    return given
for step in json.load(sys.stdin):
    published = None
    if base._is_plain(step):
        next_step = signature(base.NextStage(step), app=app)
        options = {"chain": [], "parent_id": "parent", "root_id": None, "priority": None}
        published = next_step.apply_async(("id",), **options)
    print(json.dumps(published))
"""


def step(**changes: Any) -> dict[str, Any]:
    """A step as Celery puts it into a message."""
    options = {"task_id": "own", "root_id": "root", "reply_to": "queue"}
    plain = {"task": STORE_TASK, "args": [], "kwargs": {}, "options": options}
    return plain | {"subtask_type": None, "immutable": False} | changes


OTHERS: list[dict[str, Any]] = [
    {"task": "mine"},
    {"task": "nobody's"},
    {"args": [1]},
    {"kwargs": {"more": 1}},
    {"immutable": True},
    {"subtask_type": "group"},
]


@pytest.fixture(scope="module")
def published() -> list[Any]:
    """What a worker makes of a plain step, and of the others: None where Celery is to do it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={"PYTHONPATH": str(ROOT)},
        input=json.dumps([step(), *(step(**changes) for changes in OTHERS)]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_stage_is_published_with_the_options_of_its_step_and_of_the_one_before(
    published: list[Any],
) -> None:
    args, options = published[0]

    assert args == ["id"]
    assert options == {
        "task_id": "own",
        "root_id": "root",
        "reply_to": "queue",
        "chain": [],
        "parent_id": "parent",
    }


@pytest.mark.parametrize("number", range(len(OTHERS)), ids=lambda number: str(OTHERS[number]))
def test_what_is_no_plain_stage_is_celerys(published: list[Any], number: int) -> None:
    assert published[1 + number] is None
