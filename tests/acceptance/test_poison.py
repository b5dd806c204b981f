"""An instruction that kills whichever worker executes it, among a hundred others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from llmchatlinker.embedded import broker as embedded_broker
from llmchatlinker.embedded.processes import ManagedProcess
from llmchatlinker.errors import StartFailed
from llmchatlinker.instructions import USER_CREATE
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers import poison

SECONDS = 240.0  # twenty are usual


def supervised(
    start: Callable[[], ManagedProcess], done: Callable[[], bool], seconds: float
) -> None:
    """Keep a worker running until all is done, as a supervisor does."""
    process: ManagedProcess | None = None
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        if process is None or not process.alive:
            with suppress(StartFailed):  # dead before it was ready
                process = start()
        time.sleep(0.05)


def test_poison_is_found_its_client_is_told_and_its_neighbours_are_done(
    cycle: Cycle, worker: StartWorker, configure: Configure
) -> None:
    configure(deadline=SECONDS)
    names = [f"user {number}" for number in range(100)]
    names.insert(20, "poison")
    results = {name: USER_CREATE.delay(username=name) for name in names}
    started = time.monotonic()

    supervised(
        lambda: worker("control", "user", "database", include=poison.MODULE),
        lambda: cycle.count("instructions", "final_at IS NULL") == 0,
        SECONDS,
    )

    envelopes = {name: result.get(timeout=1) for name, result in results.items()}
    failed = failure(envelopes.pop("poison"))
    assert (failed.code, failed.stage, failed.details) == ("poisoned", "execute", {"starts": 3})
    assert {envelope["status"] for envelope in envelopes.values()} == {"success"}
    assert cycle.count("users") == 100
    assert time.monotonic() - started < SECONDS
    eventually(lambda: cycle.count("dead_letters") > 0)  # which is kept behind the end
    rows = cycle.sql("SELECT queue, reason, task, became FROM dead_letters")
    assert [tuple(row) for row in rows] == [
        ("user", "poisoned", "llmchatlinker.user.user_create", "closed")
    ]


def test_with_many_workers_as_many_die_as_there_are_starts(
    cycle: Cycle, worker: StartWorker
) -> None:
    workers = [worker(include=poison.MODULE) for _ in range(5)]

    failed = failure(USER_CREATE.delay(username="poison").get(timeout=SECONDS))

    assert (failed.code, failed.details) == ("poisoned", {"starts": 3})
    assert sum(not process.alive for process in workers) == 3
    assert USER_CREATE.delay(username="ada").get(timeout=SECONDS)["status"] == "success"


@pytest.fixture
def embedded(cycle: Cycle, configure: Configure) -> Iterator[None]:
    """Messages travel through the test's own database."""
    url = embedded_broker.broker_url(get_settings().sqlalchemy_url)
    settings = configure(broker_url=url, sweep_interval=0.5, sweep_grace=1.0)
    reconnect()
    embedded_broker.prepare(settings)
    yield
    configure(broker_url=cycle.broker.url)
    reconnect()


@pytest.mark.filterwarnings("ignore:The ``noload``")  # of kombu's transport
@pytest.mark.usefixtures("embedded")
def test_in_the_embedded_system_the_sweeper_brings_poison_to_its_end(
    cycle: Cycle, worker: StartWorker, configure: Configure
) -> None:
    configure(deadline=SECONDS)
    results = [USER_CREATE.delay(username=name) for name in ("poison", "ada")]

    supervised(
        lambda: worker(include=poison.MODULE),
        lambda: cycle.count("instructions", "final_at IS NULL") == 0,
        SECONDS,
    )

    poisoned, other = (result.get(timeout=1) for result in results)
    assert failure(poisoned).code == "poisoned"
    assert failure(poisoned).details == {"starts": 3}
    assert other["status"] == "success"
