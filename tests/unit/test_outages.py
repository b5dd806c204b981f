"""The lines that the log has of an outage."""

from __future__ import annotations

import logging

import pytest
from kombu.exceptions import OperationalError

from llmchatlinker import outages, quiet_consumer
from llmchatlinker.outages import QUIET, Outage

logger = logging.getLogger("test.outages")


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(outages, "time", made)
    return made


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == logger.name]


def test_an_outage_has_two_lines_however_often_something_fails(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("The server", logger)

    for _ in range(600):
        outage.failed("gone.")
        clock.now += 1
    for _ in range(60):
        outage.answered()
        clock.now += 1

    assert lines(caplog) == [
        "The server does not answer, waiting for it: gone.",
        "The server answers again after 600.0 s",
    ]


def test_a_server_that_answers_in_between_is_not_back(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("The server", logger)

    for _ in range(600):
        outage.failed("its disk is full.")
        clock.now += 1
        outage.answered()
        clock.now += 1

    assert len(lines(caplog)) == 1


def test_an_outage_after_a_quiet_time_is_another_one(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage("The server", logger)

    for _ in range(2):
        outage.failed("gone.")
        clock.now += 1
        outage.answered()
        clock.now += QUIET

    assert len(lines(caplog)) == 3, "the second one's end nobody has seen yet"


def test_where_nothing_failed_nothing_is_said(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    Outage("The server", logger).answered()

    assert lines(caplog) == []


@pytest.mark.parametrize(
    ("name", "line", "args", "error", "is_kept"),
    [
        ("celery.worker.request", "Couldn't ack %r, reason:%r", (1,), OSError("gone"), False),
        ("celery.worker.request", "Another line about %r, %r", (1,), OSError("gone"), True),
        ("celery.worker.request", "Couldn't ack %r, reason:%r", (1,), ValueError("a defect"), True),
    ],
)
def test_of_celerys_own_lines_those_about_the_broker_are_left_out(
    name: str, line: str, args: tuple[object, ...], error: Exception, is_kept: bool
) -> None:
    record = logging.LogRecord(name, logging.CRITICAL, "", 0, line, (*args, error), None)

    assert quiet_consumer._said.filter(record) is is_kept


@pytest.mark.parametrize(
    ("name", "error", "is_kept"),
    [
        ("llmchatlinker.user.user_create", OperationalError("gone"), False),
        ("llmchatlinker.user.user_create", ValueError("a defect"), True),
        ("somebodys.task", OperationalError("gone"), True),
    ],
)
def test_a_stage_that_could_not_be_handed_on_has_no_traceback(
    name: str, error: Exception, is_kept: bool
) -> None:
    told = {"name": name}
    failed = (type(error), error, None)
    record = logging.LogRecord(
        "celery.app.trace", logging.ERROR, "", 0, "%(name)s", (told,), failed
    )

    assert quiet_consumer._hand_offs.filter(record) is is_kept
