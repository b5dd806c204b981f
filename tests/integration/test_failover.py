"""A broker of several addresses: the first is dead, the second is the test's own."""

from __future__ import annotations

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.cli import broker_checks, broker_facts
from llmchatlinker.errors import Unavailable
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import eventually

DEAD = "amqp://eve:secret@127.0.0.1:1/none"


@pytest.fixture
def half_dead(cycle: Cycle, configure: Configure) -> Cycle:
    """Nobody answers at the first and the second address."""
    configure(broker_url=f"{DEAD};{DEAD};{get_settings().broker_url}")
    reconnect()
    return cycle


def test_clients_submit_and_are_woken_past_dead_nodes(half_dead: Cycle) -> None:
    assert USER_LIST.delay().state == "PENDING"

    eventually(lambda: half_dead.broker.ready("control") == 1)
    assert wakeups().reply_to()
    eventually(lambda: wakeups().replies.connected)


def test_the_doctor_sees_the_queues_past_dead_nodes(half_dead: Cycle) -> None:
    half_dead.broker.declare()

    checks = {check.name: check for check in broker_checks.broker()}

    assert checks["broker"].state == checks["queues"].state == "ok"
    assert "secret" not in " ".join(check.found for check in checks.values())
    assert [queue.ready for queue in broker_facts.queues()] == [0] * 7


def test_when_all_are_dead_the_error_names_them_without_passwords(
    cycle: Cycle, configure: Configure
) -> None:
    other = DEAD.replace("eve:secret", "mallory:secret")
    configure(broker_url=f"{DEAD};{other}", client_patience=4.0)
    reconnect()

    with pytest.raises(Unavailable) as submitted:
        USER_LIST.delay()
    with pytest.raises(Unavailable) as looked, broker_facts.connected():
        pass

    for caught in (submitted, looked):
        assert "amqp://eve@127.0.0.1:1/none;amqp://mallory@127.0.0.1:1/none" in caught.value.message
        assert "secret" not in caught.value.message
    assert app.connection_for_write().as_uri()
