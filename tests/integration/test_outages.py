"""Servers that are gone: clients say so in time, workers and waiting clients wait it out."""

from __future__ import annotations

import threading
import time
from typing import Any
from uuid import UUID

import psycopg2.errors
import pytest
from amqp.exceptions import MessageNacked
from kombu.exceptions import OperationalError

from llmchatlinker import orchestrator
from llmchatlinker.celery_app import app
from llmchatlinker.db.migrate import migrate
from llmchatlinker.db.prepared import prepared
from llmchatlinker.db.sessions import Database, Unanswered, use_database
from llmchatlinker.errors import Unavailable
from llmchatlinker.orchestrator import _INSERT, submit
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import Broker
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.fixtures.servers import private_postgres
from tests.fixtures.threads import at_once
from tests.servers import scripts
from tests.servers.proxy import Proxy

WITHIN = 18.0  # seconds in which a client is told


def refused(server: str) -> Unavailable:
    """The error of a submission, which must come in time."""
    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        submit("USER_CREATE", {"username": "ada"})
    assert time.monotonic() - started < WITHIN
    assert caught.value.details["server"] == server
    return caught.value


def password(url: str) -> str:
    return url.partition("://")[2].partition("@")[0].partition(":")[2]


# --- the broker ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["never connected", "connected"])
def test_a_broker_that_is_gone_is_named_and_nothing_will_run(
    cycle: Cycle, mq: Proxy, before: str
) -> None:
    if before == "connected":
        submit("USER_LIST", {})
    mq.cut()

    error = refused("broker")

    host = mq.url.partition("@")[2].partition("/")[0]
    assert host in error.message
    assert host in error.details["address"]
    assert password(mq.url) not in error.message + str(error.details)
    assert "instruction_id" not in error.details
    assert cycle.count("instructions", "type = 'USER_CREATE' AND state = 'withdrawn'") == 1


def test_a_frozen_broker_is_noticed_too(cycle: Cycle, mq: Proxy) -> None:
    submit("USER_LIST", {})
    mq.freeze()
    try:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            submit("USER_CREATE", {"username": "ada"})
        assert time.monotonic() - started < WITHIN
    finally:
        mq.thaw()

    assert cycle.count("instructions", "type = 'USER_CREATE' AND state = 'withdrawn'") == 1


def test_a_withdrawn_turn_holds_no_place_in_its_chat(scene: Scene, mq: Proxy) -> None:
    mq.cut()
    with pytest.raises(Unavailable):
        scene.submit("one")
    mq.mend()

    scene.ask("two")

    assert scene.said() == ["two", "You said: two"]


def test_a_withdrawn_submission_leaves_its_idempotency_key(cycle: Cycle, mq: Proxy) -> None:
    mq.cut()
    with pytest.raises(Unavailable):
        cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")
    mq.mend()

    instruction_id = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")

    assert cycle.row(instruction_id).state == "submitted"


def test_a_broker_that_is_back_takes_messages_again(cycle: Cycle, mq: Proxy) -> None:
    submit("USER_LIST", {})
    mq.cut()
    refused("broker")
    mq.mend()

    submit("USER_CREATE", {"username": "ada"})

    assert cycle.broker.ready("control") == 2


def test_a_connection_that_broke_unnoticed_is_replaced(cycle: Cycle, mq: Proxy) -> None:
    submit("USER_LIST", {})
    mq.cut()
    mq.mend()

    submit("USER_LIST", {})

    assert cycle.broker.ready("control") == 2


@pytest.mark.parametrize("times", [3, 1_000_000], ids=["for a moment", "for ever"])
def test_a_broker_that_refuses_a_message_is_asked_again_while_patience_lasts(
    cycle: Cycle, configure: Configure, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    submit("USER_LIST", {})  # connections are there
    configure(client_patience=30.0 if times < 10 else 2.0)
    real, refusals = orchestrator.publish, iter(range(times))

    def publish(*args: Any, **options: Any) -> None:
        if next(refusals, None) is not None:
            raise OperationalError("") from MessageNacked()
        real(*args, **options)

    monkeypatch.setattr(orchestrator, "publish", publish)
    if times < 10:
        submit("USER_LIST", {})
        assert cycle.broker.ready("control") == 2
    else:
        refused("broker")
        assert next(refusals) > 1


def test_a_client_that_closes_a_late_turn_is_not_held_up_by_a_broker_that_is_gone(
    scene: Scene, mq: Proxy
) -> None:
    cycle = scene.cycle
    first, second = scene.decoded("one"), scene.decoded("two")
    cycle.execute(second)
    cycle.sql("UPDATE instructions SET deadline_at = now() WHERE id = :id", id=first)
    mq.cut()
    started = time.monotonic()

    envelope = app.AsyncResult(str(first)).get(timeout=20)

    assert envelope["status"] == "error"
    assert time.monotonic() - started < WITHIN
    # The sweeper sends the second one on.
    assert (cycle.row(second).state, cycle.row(second).final_at) == ("decoded", None)


# --- the database -------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["never connected", "connected"])
def test_a_database_that_is_gone_is_named_and_nothing_will_run(
    cycle: Cycle, db: Proxy, before: str
) -> None:
    if before == "connected":
        submit("USER_LIST", {})
    db.cut()

    error = refused("postgresql")

    host = db.url.partition("@")[2].partition("/")[0]
    assert host in error.message
    assert host in error.details["address"]
    assert password(db.url) not in error.message + str(error.details)
    assert cycle.count("instructions", "type = 'USER_CREATE'") == 0


def test_a_statement_with_a_bound_does_not_wait_for_a_frozen_database(
    database: Database, configure: Configure
) -> None:
    with Proxy(get_settings().database_url) as proxy:
        between = Database(configure(database_url=proxy.url))
        assert between.statement("SELECT 1", {}, patience=30, bounded=True) == [(1,)]
        proxy.freeze()
        try:
            with pytest.raises(Unanswered):
                between.statement("SELECT 1", {}, patience=1, bounded=True)
        finally:
            proxy.thaw()
        assert between.statement("SELECT 2", {}, patience=30, bounded=True) == [(2,)]
        between.dispose()


def test_a_frozen_database_is_noticed_and_the_error_carries_the_id_that_may_still_run(
    cycle: Cycle, db: Proxy, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the row is the first thing that is sent.
    monkeypatch.setattr(orchestrator, "admit", lambda **_: None)
    submit("USER_LIST", {})
    configure(client_patience=1.0)
    db.freeze()
    try:
        with pytest.raises(Unavailable) as caught:
            submit("USER_CREATE", {"username": "ada"})
    finally:
        db.thaw()

    assert caught.value.code == "unavailable"
    assert "may still run" in caught.value.message
    assert caught.value.details["server"] == "postgresql"
    assert UUID(caught.value.details["instruction_id"])


def test_who_waits_is_not_held_by_a_frozen_database(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    result = app.AsyncResult(submit("USER_LIST", {}))
    configure(client_patience=1.0)
    db.freeze()
    try:
        with pytest.raises(Unavailable):
            result.get(timeout=1)
        with pytest.raises(Unavailable):
            result.ready()
    finally:
        db.thaw()

    cycle.finish(UUID(result.id))
    assert result.get(timeout=30)["status"] == "success"


@pytest.mark.parametrize(
    ("code", "said", "remedy"),
    [
        ("53100", "could not extend file: No space left on device", "Its disk is full"),
        ("42501", "could not open file: Read-only file system", "Its disk has become read-only"),
        ("58030", "could not read block 0: Input/output error", "Check that it runs"),
    ],
)
def test_what_is_wrong_with_the_disk_of_the_database_is_named_with_its_remedy(
    database: Database, code: str, said: str, remedy: str
) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION '{said}' USING ERRCODE = '{code}'; END $$"

    with pytest.raises(Unavailable) as caught:
        database.statement(statement, {}, patience=0)

    assert said in caught.value.message
    assert remedy in caught.value.message


def test_a_right_that_is_missing_is_no_outage(database: Database) -> None:
    statement = "DO $$ BEGIN RAISE EXCEPTION 'permission denied' USING ERRCODE = '42501'; END $$"

    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        database.statement(statement, {}, patience=0)


def test_when_both_are_gone_the_error_carries_the_id_that_may_still_run(
    cycle: Cycle, mq: Proxy, db: Proxy
) -> None:
    submit("USER_LIST", {})
    mq.cut()
    db.cut_after(f"EXECUTE {prepared(_INSERT).name}".encode("ascii"))

    with pytest.raises(Unavailable) as caught:
        submit("USER_CREATE", {"username": "ada"})

    row = cycle.row(caught.value.details["instruction_id"])
    assert row.state == "submitted"
    assert "may still run" in caught.value.message


@pytest.mark.parametrize("many", [False, True])
def test_a_waiting_client_waits_out_an_outage(
    cycle: Cycle, db: Proxy, many: bool, configure: Configure
) -> None:
    instruction_id = str(cycle.submit("USER_CREATE", username="ada"))
    configure(client_patience=0.2)

    def wait() -> str:
        if many:
            found = dict(app.backend.get_many([instruction_id], timeout=60))
            return str(found[instruction_id]["result"]["status"])
        return app.AsyncResult(instruction_id).get(timeout=60)["status"]

    def outage() -> str:
        db.cut()
        threading.Event().wait(1.0)  # several times the client's patience
        db.mend()
        cycle.finish(cycle.row(instruction_id).id)
        return "success"

    assert set(at_once([wait, outage])) == {"success"}


def test_a_stage_waits_out_an_outage(cycle: Cycle, db: Proxy) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    db.cut()
    timer = threading.Timer(1.0, db.mend)
    timer.start()

    assert cycle.decode(instruction_id)

    timer.join()
    assert cycle.row(instruction_id).state == "decoded"


# --- a restart ----------------------------------------------------------------------------------


def test_an_answer_that_comes_while_the_database_is_gone_is_kept(scene: Scene, db: Proxy) -> None:
    instruction_id = scene.decoded("Hello")

    def cut(exchange: scripts.Exchange) -> None:
        db.cut()
        scripts.echo(exchange)

    scene.provider.script(cut)

    def mend() -> bool:
        scene.provider.wait_for_calls(1)
        threading.Event().wait(1.0)
        db.mend()
        return True

    done, _ = at_once([lambda: scene.cycle.execute(instruction_id), mend])

    assert done
    assert scene.said() == ["Hello", "You said: Hello"]
    assert [row[0] for row in scene.cycle.sql("SELECT status FROM attempts")] == ["answered"]
    assert len(scene.provider.calls) == 1


def test_a_restart_of_postgresql_is_waited_out(broker: Broker, configure: Configure) -> None:
    """A server of its own: nobody else's is restarted."""
    with private_postgres() as server:
        server.ensure_database("test")
        database = Database(configure(database_url=server.url("test")))
        use_database(database)
        try:
            migrate(database)
            cycle = Cycle(database, broker)
            instruction_id = cycle.submit("USER_CREATE", username="ada")
            configure(client_patience=0.5)
            result = app.AsyncResult(str(instruction_id))

            def restart() -> str:
                process = server.process
                process.stop(20.0)
                threading.Event().wait(1.0)
                process.start()
                cycle.finish(instruction_id)
                return "success"

            got = at_once([lambda: result.get(timeout=60)["status"], restart])
            assert set(got) == {"success"}
        finally:
            use_database(None)
