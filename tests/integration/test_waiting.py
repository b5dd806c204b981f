"""How clients wait: woken from other processes, many at once, over a small pool."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from llmchatlinker.celery_app import app
from llmchatlinker.instructions import USER_CREATE, USER_LIST
from llmchatlinker.results.wakeups import forget_wakeups, wakeups
from llmchatlinker.settings import get_settings
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import READING, Cycle
from tests.fixtures.servers import PostgresServer
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker, environment
from tests.servers.proxy import Proxy

POLL = """
import json, sys, time
from llmchatlinker import app
result = app.AsyncResult(sys.argv[1])
print(result.state, flush=True)
end = time.monotonic() + 60
while not result.ready() and time.monotonic() < end:
    time.sleep(0.01)
print(result.state, json.dumps(result.get(timeout=1)), flush=True)
"""

WAIT = """
import json, sys
from llmchatlinker import app
print("waiting", flush=True)
print(json.dumps(app.AsyncResult(sys.argv[1]).get(timeout=60)), flush=True)
"""

FORK = """
import os, sys, threading, time
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.db.sessions import database

def use():
    result = USER_LIST.delay()
    return result.state

assert use() == "PENDING"
for number in range(3):
    pid = os.fork()
    if pid == 0:
        try:
            threading.Timer(30, lambda: os._exit(3)).start()
            os._exit(0 if use() == use() == "PENDING" else 1)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(2)
    assert use() == "PENDING"
    _, status = os.waitpid(pid, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
    assert use() == "PENDING"
"""


def program(text: str, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
    """A Python process with this process's settings."""
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments],
        env=environment(get_settings(), **settings),
        stdout=subprocess.PIPE,
        text=True,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


# --- other processes ----------------------------------------------------------------------------


def test_another_process_polls_a_result_by_its_id(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    with program(POLL, str(instruction_id)) as other:
        assert line(other) == "PENDING"
        cycle.finish(instruction_id)
        state, _, envelope = line(other).partition(" ")

    assert state == "SUCCESS"
    assert json.loads(envelope) == cycle.envelope(instruction_id)


def test_another_process_that_waits_for_an_id_gets_its_result(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    with program(WAIT, str(instruction_id)) as other:
        assert line(other) == "waiting"
        cycle.finish(instruction_id)
        envelope = json.loads(line(other))

    assert envelope == cycle.envelope(instruction_id)


def test_a_waiting_client_is_woken_and_does_not_poll(
    cycle: Cycle, worker: StartWorker, configure: Configure
) -> None:
    configure(fallback_interval=60.0)
    worker()
    USER_LIST.delay().get(timeout=70)  # the first one may still be connecting
    started = time.monotonic()

    for number in range(5):
        assert USER_CREATE.delay(username=f"user {number}").get(timeout=50)["status"] == "success"

    assert time.monotonic() - started < 20


def test_who_did_not_submit_is_woken_too(cycle: Cycle, worker: StartWorker) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada", deadline=600)
    with program(WAIT, str(instruction_id), fallback_interval=60.0) as other:
        assert line(other) == "waiting"
        eventually(lambda: cycle.count("waiters") == 1)
        worker()
        started = time.monotonic()
        assert json.loads(line(other))["status"] == "success"

    assert time.monotonic() - started < 50
    assert cycle.count("waiters") == 0


def test_a_forked_child_shares_no_connection_with_its_parent(cycle: Cycle) -> None:
    with program(FORK) as parent:
        assert [line(parent) for _ in range(3)] == ["0", "0", "0"]

    assert parent.returncode == 0
    assert cycle.count("instructions") == 13
    assert cycle.broker.ready("control") == 13


# --- many at once -------------------------------------------------------------------------------


def test_a_hundred_waiting_threads_need_no_more_connections_than_the_pool_has(
    cycle: Cycle, postgres_server: PostgresServer, configure: Configure
) -> None:
    name = str(cycle.database.engine.url.database)
    before = postgres_server.connections(name)
    ids = [cycle.submit("USER_CREATE", username=f"user {number}") for number in range(100)]
    most = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, postgres_server.connections(name))

    def finish() -> str:
        for instruction_id in ids:
            cycle.finish(instruction_id)
        return "success"

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        got = at_once(
            [
                finish,
                *[lambda i=i: app.AsyncResult(str(i)).get(timeout=120)["status"] for i in ids],
            ]
        )
    finally:
        over.set()
        watcher.join()

    assert set(got) == {"success"}
    assert before <= most <= get_settings().database_pool_size


def test_a_thousand_waiting_threads_need_no_more_connections_than_the_pool_has(
    cycle: Cycle, postgres_server: PostgresServer, configure: Configure
) -> None:
    cycle.sql(
        "INSERT INTO instructions (id, type, data, deadline_at)"
        " SELECT CAST(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000' AS uuid),"
        " 'USER_LIST', '{}', now() + interval '1 hour' FROM generate_series(1, 1000) n"
    )
    ids = [f"{number:08x}-0000-7000-8000-000000000000" for number in range(1, 1_001)]
    name = str(cycle.database.engine.url.database)
    seen: list[int] = []

    def finish() -> str:
        eventually(lambda: cycle.count("waiters") == 1_000)
        seen.append(postgres_server.connections(name))
        cycle.sql(
            "UPDATE instructions SET state = 'final', final_at = now(),"
            " outcome = jsonb_build_object('status', 'success')"
        )
        return "success"

    waits = [lambda i=i: app.AsyncResult(i).get(timeout=120)["status"] for i in ids]
    assert set(at_once([finish, *waits])) == {"success"}

    seen.append(postgres_server.connections(name))
    assert max(seen) <= get_settings().database_pool_size


def test_a_hundred_threads_that_submit_share_the_pools(
    cycle: Cycle, postgres_server: PostgresServer
) -> None:
    results = at_once([lambda: USER_LIST.delay().state] * 100)

    assert set(results) == {"PENDING"}
    assert cycle.broker.ready("control") == 100
    name = str(cycle.database.engine.url.database)
    assert postgres_server.connections(name) <= get_settings().database_pool_size


@pytest.mark.parametrize("count", [1_500])
def test_more_results_than_fit_into_one_query_are_got_together(cycle: Cycle, count: int) -> None:
    cycle.sql(
        "INSERT INTO instructions (id, type, state, data, deadline_at, final_at, outcome)"
        " SELECT CAST(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000' AS uuid),"
        " 'USER_LIST', 'final', '{}', now(), now(),"
        " jsonb_build_object('status', 'success', 'message', '', 'data', '{}', 'instruction_id', n)"
        " FROM generate_series(1, :count) n",
        count=count,
    )
    ids = [f"{number:08x}-0000-7000-8000-000000000000" for number in range(1, count + 1)]

    found = dict(app.backend.get_many(ids, timeout=30))

    assert set(found) == set(ids)


# --- the embedded system ------------------------------------------------------------------------


def test_in_the_embedded_system_one_short_read_serves_two_hundred_waiters(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    pause, waiters = 0.5, 200
    configure(
        broker_url="sqla+" + get_settings().database_url,
        poll_interval=pause,
        poll_interval_max=pause,
    )
    forget_wakeups()
    rows = cycle.sql(
        "INSERT INTO instructions (id, type, data, deadline_at)"
        " SELECT CAST(lpad(to_hex(n), 8, '0') || '-0000-7000-8000-000000000000' AS uuid),"
        " 'USER_LIST', '{}', now() + interval '1 hour'"
        f" FROM generate_series(1, {waiters}) n RETURNING id"
    )
    ids = [str(row[0]) for row in rows]

    def finish() -> tuple[int, float]:
        eventually(lambda: wakeups().waiting == waiters and not wakeups()._due)
        began, reads = time.monotonic(), db.said.count(READING)
        eventually(lambda: db.said.count(READING) >= reads + 5)
        looked, intervals = db.said.count(READING) - reads, (time.monotonic() - began) / pause
        cycle.sql(
            "UPDATE instructions SET state = 'final', final_at = now(), outcome ="
            " jsonb_build_object('status', 'success', 'instruction_id', id)"
        )
        return looked, intervals

    works: list[Callable[[], Any]] = [partial(app.AsyncResult(i).get, timeout=120) for i in ids]
    (looked, intervals), *envelopes = at_once([finish, *works])

    assert [envelope["instruction_id"] for envelope in envelopes] == ids
    # One for those who had only just come may have been under way.
    assert looked <= intervals + 2
    assert not wakeups().replies.connected
