"""Results that come with their hints: who waits reads nothing from PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from kombu import Connection

from llmchatlinker.celery_app import app
from llmchatlinker.errors import NotFound
from llmchatlinker.outcomes import SMALL
from llmchatlinker.results import early
from llmchatlinker.results.reading import read
from llmchatlinker.results.wakeups import wakeups
from tests.fixtures.brokers import Broker
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import READING, Cycle
from tests.fixtures.threads import eventually
from tests.integration.test_lost_hints import NEVER, get, hinted
from tests.servers.proxy import Proxy
from tests.servers.thief import Thief


@pytest.fixture(autouse=True)
def nobody_looks(cycle: Cycle, configure: Configure) -> None:
    """What comes, comes by a hint, and there is a connection that brings it."""
    configure(fallback_interval=NEVER)
    hinted()
    early_result(cycle)


def early_result(cycle: Cycle) -> str:
    """The id of an instruction whose hint has come already."""
    text = str(cycle.submit("USER_LIST"))
    cycle.finish(UUID(text))
    eventually(lambda: text in wakeups()._early)
    return text


@contextmanager
def waiting(instruction_id: UUID) -> Iterator[list[Any]]:
    """Somebody waits for it, and has its meta by the end."""
    found: list[Any] = []
    text = str(instruction_id)

    def wait() -> None:
        found.append(app.backend.wait_for(text, timeout=120))

    waiter = threading.Thread(target=wait)
    waiter.start()
    eventually(lambda: text in wakeups()._waiting)
    yield found
    waiter.join()


def test_who_waits_for_a_small_result_reads_nothing(cycle: Cycle, db: Proxy) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    with waiting(instruction_id) as found:
        reads = db.said.count(READING)
        cycle.finish(instruction_id)

    assert found[0]["result"]["data"]["user"]["username"] == "ada"
    assert db.said.count(READING) == reads


@pytest.mark.parametrize("username", ["ada", 'zoë \\ "☃" \u2028 🦆', ""])
def test_what_a_hint_brings_is_what_would_be_read(cycle: Cycle, username: str) -> None:
    instruction_id = cycle.submit("USER_CREATE", username=username)
    with waiting(instruction_id) as found:
        cycle.finish(instruction_id)

    text = str(instruction_id)
    stored = app.backend.understood(text, read([text])[text])
    assert found == [stored]
    assert list(found[0]["result"]) == list(stored["result"])


def test_a_large_result_is_read(cycle: Cycle, db: Proxy) -> None:
    for number in range(40):
        cycle.do("USER_CREATE", username=f"{number:02} {'a' * 100}")
    instruction_id = cycle.submit("USER_LIST")
    with waiting(instruction_id) as found:
        reads = db.said.count(READING)
        cycle.finish(instruction_id)

    assert len(str(found[0]["result"])) > SMALL
    assert len(found[0]["result"]["data"]["users"]) == 40
    assert db.said.count(READING) > reads


def test_a_result_that_came_before_anybody_waited_is_not_read_either(
    cycle: Cycle, db: Proxy
) -> None:
    task_id = early_result(cycle)
    reads = db.said.count(READING)

    assert get(task_id) == "success"
    assert db.said.count(READING) == reads
    assert get(task_id) == "success"  # which is asked of PostgreSQL
    assert db.said.count(READING) == reads + 1


def test_a_result_that_came_long_before_anybody_waited_is_read(
    cycle: Cycle, db: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = early_result(cycle)
    monkeypatch.setattr(early, "KEPT_SECONDS", 0.0)
    reads = db.said.count(READING)

    assert get(task_id) == "success"
    assert db.said.count(READING) == reads + 1


def test_a_result_that_is_forgotten_before_anybody_waited_is_gone(cycle: Cycle) -> None:
    task_id = early_result(cycle)

    app.AsyncResult(task_id).forget()

    began = time.monotonic()
    with pytest.raises(NotFound):
        get(task_id, timeout=NEVER / 2)
    assert time.monotonic() - began < NEVER / 4


def test_two_who_wait_get_an_envelope_each(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    with waiting(instruction_id) as first, waiting(instruction_id) as second:
        eventually(lambda: len(wakeups()._waiting[str(instruction_id)]) == 2)
        cycle.finish(instruction_id)

    assert first == second
    assert first[0]["result"] is not second[0]["result"]


def test_after_a_lost_connection_who_begins_to_wait_looks_for_what_was_hinted_meanwhile(
    cycle: Cycle, broker: Broker
) -> None:
    queue = hinted()
    task_id = str(cycle.submit("USER_LIST"))
    with Thief(broker.url, queue) as thief:
        cycle.finish(UUID(task_id))
        eventually(lambda: thief.taken == 1)
    with Connection(broker.url) as connection:
        connection.default_channel.queue_delete(queue)
    eventually(lambda: not wakeups().replies.connected)
    eventually(lambda: wakeups().replies.connected)

    began = time.monotonic()
    assert get(task_id, timeout=NEVER / 2) == "success"
    assert time.monotonic() - began < NEVER / 4


def test_one_by_one_nobody_wakes_the_reader(cycle: Cycle) -> None:
    first = cycle.submit("USER_LIST")
    with waiting(first):
        cycle.finish(first)
    woken = 0
    changed: Any = wakeups()._changed

    def notify(*_: int) -> None:
        nonlocal woken
        woken += 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(changed, "notify", notify)
        for _ in range(5):
            instruction_id = cycle.submit("USER_LIST")
            with waiting(instruction_id) as found:
                cycle.finish(instruction_id)
            assert found

    assert woken == 0
