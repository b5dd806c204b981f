"""Celery tasks that are no instructions, on the product's own app: what a user may well add."""

from __future__ import annotations

import datetime
import decimal
import time
import uuid
from typing import Any

from celery import Task, group
from celery.exceptions import Reject

from llmchatlinker.celery_app import app

MODULE = __name__


class Sour(Exception):
    """An exception that rebuilds from its arguments."""

    def __init__(self, what: str, degree: int) -> None:
        super().__init__(what, degree)
        self.degree = degree


class Stubborn(Exception):
    """One that does not."""

    def __init__(self, *, what: str) -> None:
        super().__init__(what)


@app.task
def add(x: int, y: int) -> int:
    """The sum."""
    return x + y


@app.task
def total(numbers: list[int]) -> int:
    """The body of most chords."""
    return sum(numbers)


@app.task
def same(value: Any) -> Any:
    """What it was given."""
    return value


@app.task
def rich() -> list[Any]:
    """What Celery's JSON knows and JSON does not, and texts that JSONB refuses."""
    moment = datetime.datetime(2026, 11, 23, 4, 5, 6, tzinfo=datetime.UTC)
    return [moment, uuid.UUID(int=7), decimal.Decimal("1.10"), "a\x00b", "\ud800", "größe 世界"]


@app.task
def unspeakable() -> object:
    """What no JSON can be made of."""
    return object()


@app.task
def fail(kind: str) -> None:
    """Raise."""
    if kind == "sour":
        raise Sour("milk", 3)
    if kind == "stubborn":
        raise Stubborn(what="mule")
    raise ValueError("a\x00b \ud800")


@app.task(ignore_result=True)
def fail_unseen() -> None:
    """Raise, where nobody wants to know."""
    raise ValueError


@app.task
def reject() -> None:
    """Refuse the message."""
    raise Reject("no", requeue=False)


@app.task(bind=True, max_retries=2)
def try_again(self: Task, needed: int, countdown: float) -> int:
    """Succeed after that many retries, or fail for good after two."""
    if self.request.retries < needed:
        raise self.retry(exc=ValueError("not yet"), countdown=countdown)
    return int(self.request.retries)


@app.task(bind=True)
def report_progress(self: Task) -> str:
    """Say how far it is until somebody forgets the flag's result."""
    self.update_state(state="PROGRESS", meta={"done": 5, "of": 10})
    flag = app.AsyncResult(f"go on {self.request.id}")
    while not flag.ready():
        time.sleep(0.02)
    return "done"


@app.task(bind=True, trail=True)
def squares(self: Task, count: int) -> Any:
    """Children: a group of ``square``."""
    return group(square.s(number) for number in range(count))()


@app.task(trail=True)
def square(number: int) -> int:
    """A leaf."""
    return number**2


@app.task
def wait_within() -> str:
    """Wait for another task inside of a task."""
    try:
        add.delay(1, 1).get(timeout=5)
    except RuntimeError as error:
        return str(error)
    return "it was allowed"


@app.task
def note_failure(request: Any, error: Exception, traceback: str) -> None:
    """An errback: leaves a result under an id that a test knows."""
    app.backend.store_result(f"noted {request.id}", type(error).__name__, "SUCCESS")
