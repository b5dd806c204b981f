"""Chords of Celery tasks that are no instructions: one body, however often a part is delivered."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from celery import chain, chord, group
from celery.app.task import Context
from celery.exceptions import ChordError

from llmchatlinker.celery_app import app
from llmchatlinker.embedded.processes import ManagedProcess
from llmchatlinker.results import chords
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker
from tests.servers import ordinary_tasks as tasks

PATIENCE = 60.0


@pytest.fixture
def ordinary(cycle: Cycle, worker: StartWorker) -> ManagedProcess:
    """A worker that knows the tasks."""
    return worker(include=tasks.MODULE)


def get(result: Any) -> Any:
    return result.get(timeout=PATIENCE)


class Header:
    """A header in the hands of the test: its parts end when the test says so."""

    def __init__(self, cycle: Cycle, parts: int) -> None:
        self.cycle = cycle
        self.id = str(uuid4())
        self.parts = [app.AsyncResult(str(uuid4())) for _ in range(parts)]
        self.body = tasks.total.s().set(task_id=str(uuid4()))
        app.backend.apply_chord((self.id, list(self.parts)), self.body)

    def end(self, part: int, value: Any = 1) -> None:
        """A part returns."""
        task_id = self.parts[part].id
        chord_of_it = json.loads(json.dumps(self.body))
        request = Context(
            id=task_id, group=self.id, chord=chord_of_it, task="add", delivery_info={}
        )
        app.backend.mark_as_done(task_id, value, request=request)

    def bodies(self) -> list[Any]:
        """What was published for the body."""
        return [json.loads(found.body)[0] for found in self.cycle.broker.take_all("database")]


# --- the last part ------------------------------------------------------------------------------


def test_the_last_part_starts_the_body_and_no_other_does(cycle: Cycle) -> None:
    header = Header(cycle, 3)
    for part in (2, 0, 2, 0):
        header.end(part, part)
    assert header.bodies() == []

    header.end(1, 1)
    header.end(1, 1)

    assert header.bodies() == [[[0, 1, 2]]]


def test_parts_that_end_together_start_one_body(cycle: Cycle) -> None:
    header = Header(cycle, 8)

    at_once([lambda n=number: header.end(n, n) for number in range(8)])  # type: ignore[misc]

    assert header.bodies() == [[list(range(8))]]


def test_a_part_whose_process_dies_with_the_body_in_its_hand_has_it_again(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = Header(cycle, 2)
    header.end(0)

    def dies(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(chords, "_end_header", dies)
        with pytest.raises(SystemExit):
            header.end(1)
    header.end(0)  # is not the one that has claimed it
    assert header.bodies() == []

    header.end(1)

    assert header.bodies() == [[[1, 1]]]


# --- with a worker ------------------------------------------------------------------------------


def test_a_chords_body_gets_the_headers_values_in_their_order(
    cycle: Cycle, ordinary: ManagedProcess
) -> None:
    flat = chord([tasks.add.s(number, 0) for number in range(30)])(tasks.same.s())
    assert get(flat) == list(range(30))
    assert get(chord([])(tasks.total.s())) == 0
    assert get(chain(group(tasks.add.s(1, 1), tasks.add.s(2, 2)), tasks.total.s())()) == 6
    chains = [chain(tasks.add.s(number, 1), tasks.add.s(1)) for number in range(3)]
    assert get(chord(chains)(tasks.total.s())) == 9
    inner = chord([tasks.add.s(1, 1), tasks.add.s(2, 2)], tasks.total.s())
    assert get(chord([inner, tasks.add.s(4, 4)])(tasks.total.s())) == 14
    assert get(chord([tasks.try_again.s(1, 0), tasks.add.s(1, 1)])(tasks.total.s())) == 3
    eventually(lambda: cycle.count("task_results", "task_id LIKE 'group:%'") == 0)


def test_a_chord_with_a_part_that_fails_is_an_error_that_names_it(
    ordinary: ManagedProcess,
) -> None:
    body = tasks.total.s().on_error(tasks.note_failure.s())
    result = chord([tasks.add.s(1, 1), tasks.fail.s("sour")])(body)

    # By its id alone: a result that knows its header raises the part's own error if it comes first.
    with pytest.raises(ChordError, match="Dependency .* raised Sour"):
        get(app.AsyncResult(result.id))
    noted = app.AsyncResult(f"noted {result.id}")
    assert get(noted) == "ChordError"
