"""The embedded broker when its PostgreSQL goes in the middle of something."""

from __future__ import annotations

import time
from collections.abc import Iterator
from queue import Empty

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.embedded import broker as embedded_broker
from llmchatlinker.errors import Unavailable
from llmchatlinker.instructions import USER_CREATE
from llmchatlinker.orchestrator import submit
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.threads import eventually
from tests.fixtures.workers import StartWorker
from tests.servers.proxy import Proxy

SECONDS = 60.0
#: Statements of kombu's transport on whose way back the connection is lost.
STATEMENTS = ("SELECT kombu_queue", "INSERT INTO kombu_message", "UPDATE kombu_message", "COMMIT")


@pytest.fixture
def between(cycle: Cycle, configure: Configure) -> Iterator[Proxy]:
    """What stands between a worker and the broker; this process goes past it."""
    url = embedded_broker.broker_url(get_settings().sqlalchemy_url)
    with Proxy(get_settings().sqlalchemy_url) as proxy:
        settings = configure(broker_url=url, sweep_interval=0.5, sweep_grace=1.0)
        reconnect()
        embedded_broker.prepare(settings)
        yield proxy
        configure(broker_url=cycle.broker.url)
        reconnect()


@pytest.mark.filterwarnings("ignore:The ``noload``")  # of kombu's transport
def test_a_connection_lost_at_a_message_ends_no_instruction(
    cycle: Cycle, between: Proxy, worker: StartWorker
) -> None:
    process = worker(
        broker_url=embedded_broker.broker_url(between.url + "?sslmode=disable"),
        database_url=get_settings().database_url,
    )
    results = []

    for number in range(5 * len(STATEMENTS)):
        between.lose_the_answer_to(STATEMENTS[number % len(STATEMENTS)].encode())
        results.append(USER_CREATE.delay(username=f"user {number}"))
        # It is lost before the next loss would take its place.
        eventually(between.has_lost_it)
        time.sleep(0.1)  # a moment of work before the next one is lost: the losses are to be spread

    assert {result.get(timeout=SECONDS)["status"] for result in results} == {"success"}
    assert cycle.count("users") == len(results)
    assert process.alive
    log = process.log_text()
    assert log.count("Connection to broker lost") >= len(STATEMENTS)
    assert "PendingRollbackError" not in log
    assert "EMERGENCY" not in log


@pytest.mark.filterwarnings("ignore:The ``noload``")  # of kombu's transport
@pytest.mark.usefixtures("between")
def test_whatever_is_done_with_a_queue_no_connection_is_held() -> None:
    with app.connection_for_write() as connection:
        channel = connection.default_channel
        engine, _ = channel._open()

        channel.queue_declare("llmchatlinker.user", durable=True)
        assert channel._size("llmchatlinker.user") == 0
        channel._put("llmchatlinker.user", {"body": ""})
        assert channel._get("llmchatlinker.user") == {"body": ""}
        with pytest.raises(Empty):
            channel._get("llmchatlinker.user")
        channel._purge("llmchatlinker.user")

        assert engine.pool.checkedout() == 0


@pytest.mark.filterwarnings("ignore:The ``noload``")  # of kombu's transport
@pytest.mark.usefixtures("between")
def test_a_disk_that_is_read_only_is_an_outage(cycle: Cycle, configure: Configure) -> None:
    configure(client_patience=4.0)
    cycle.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE 'could not extend file \"base/1/2\": Read-only file system' USING ERRCODE = '42501';"
        " END $$"
    )
    cycle.sql(
        "CREATE TRIGGER refuse BEFORE INSERT ON kombu_message FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(Unavailable) as caught:
        submit("USER_LIST", {})

    assert "Read-only file system" in caught.value.message
    assert cycle.count("instructions", "state = 'withdrawn'") == 1
    cycle.sql("DROP TRIGGER refuse ON kombu_message")
    submit("USER_LIST", {})
    assert cycle.count("kombu_message") == 1
