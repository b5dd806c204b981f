"""The gate: who is at work beside whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmchatlinker.suspects import Gate
from tests.fixtures.threads import eventually, holds


class Stage:
    """A stage in a thread of its own, which goes on until it is told to end."""

    def __init__(self, enter: Callable[[], object]) -> None:
        self.begun = threading.Event()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(enter,))
        self._thread.start()

    def _run(self, enter: Callable[[], object]) -> None:
        with enter():  # type: ignore[attr-defined]
            self.begun.set()
            self._end.wait(30)

    def end(self) -> None:
        self._end.set()
        self._thread.join(30)


def test_ordinary_stages_are_at_work_together() -> None:
    gate = Gate()
    stages = [Stage(lambda brief=brief: gate.at_work(brief=brief)) for brief in (True, True, False)]

    assert all(stage.begun.wait(30) for stage in stages)

    for stage in stages:
        stage.end()


def test_a_lone_stage_waits_for_those_at_work() -> None:
    gate = Gate()
    ordinary = Stage(lambda: gate.at_work(brief=True))
    assert ordinary.begun.wait(30)
    lone = Stage(lambda: gate.alone(patience=None))
    assert not lone.begun.wait(0.1)

    ordinary.end()

    assert lone.begun.wait(30)
    lone.end()


def test_nothing_brief_begins_beside_a_lone_stage() -> None:
    gate = Gate()
    lone = Stage(lambda: gate.alone(patience=None))
    assert lone.begun.wait(30)
    brief = Stage(lambda: gate.at_work(brief=True))
    assert not brief.begun.wait(0.1)

    lone.end()

    assert brief.begun.wait(30)
    brief.end()


def test_there_is_one_lone_stage_at_a_time() -> None:
    gate = Gate()
    lone = Stage(lambda: gate.alone(patience=None))
    assert lone.begun.wait(30)
    other = Stage(lambda: gate.alone(patience=None))
    assert not other.begun.wait(0.1)

    lone.end()

    assert other.begun.wait(30)
    other.end()


def test_calls_go_on_beside_a_stage_that_is_alone_among_the_brief() -> None:
    gate = Gate()
    call = Stage(lambda: gate.at_work(brief=False))
    assert call.begun.wait(30)

    lone = Stage(lambda: gate.alone(patience=None))
    assert lone.begun.wait(30)
    later = Stage(lambda: gate.at_work(brief=False))
    assert later.begun.wait(30)

    for stage in (call, lone, later):
        stage.end()


def test_a_stage_that_is_alone_among_all_gives_calls_a_while_to_end() -> None:
    gate = Gate()
    call = Stage(lambda: gate.at_work(brief=False))
    assert call.begun.wait(30)
    started = time.monotonic()

    lone = Stage(lambda: gate.alone(patience=0.3))
    assert lone.begun.wait(30)

    assert time.monotonic() - started >= 0.3
    later = Stage(lambda: gate.at_work(brief=False))
    assert not holds(later.begun.is_set, 0.1)
    lone.end()
    eventually(later.begun.is_set)
    call.end()
    later.end()
