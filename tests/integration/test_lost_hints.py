"""Hints that never come: the slow look finds every result, all waiters in one query."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any
from uuid import UUID

from kombu import Connection

from llmchatlinker.celery_app import app
from llmchatlinker.instructions import USER_LIST
from llmchatlinker.results.wakeups import BATCH, wakeups
from llmchatlinker.settings import get_settings
from tests.fixtures.brokers import Broker, reconnect
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import READING, Cycle
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import environment
from tests.servers.proxy import Proxy
from tests.servers.rabbitmq import PrivateRabbitMQ
from tests.servers.thief import Thief

#: Longer than any test: nobody is found by the slow look.
NEVER = 300.0
FORK = """
import os, sys, threading
from llmchatlinker.celery_app import app
from llmchatlinker.results.wakeups import wakeups

result = app.AsyncResult(sys.argv[1])
waiting = threading.Thread(target=result.get, kwargs={"timeout": 60})
waiting.start()
while not wakeups().replies.connected:
    threading.Event().wait(0.01)
pid = os.fork()
if pid == 0:
    try:
        threading.Timer(60, lambda: os._exit(3)).start()
        print("child waits", flush=True)
        os._exit(0 if app.AsyncResult(sys.argv[1]).get(timeout=50)["status"] == "success" else 1)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(2)
_, status = os.waitpid(pid, 0)
waiting.join()
print(result.get(timeout=0)["status"], os.waitstatus_to_exitcode(status), flush=True)
"""


def hinted() -> str:
    """Be hinted to, and return the queue that the hints come to."""
    queue = wakeups().reply_to()
    eventually(lambda: wakeups().replies.connected)
    assert queue is not None
    return queue


def get(task_id: str, timeout: float = 120.0) -> str:
    """Wait; the status."""
    return str(app.AsyncResult(task_id).get(timeout=timeout)["status"])


def test_two_hundred_whose_hints_are_all_lost_are_found_by_one_query_each_interval(
    cycle: Cycle, db: Proxy, broker: Broker, configure: Configure
) -> None:
    configure(fallback_interval=1.0)
    waiters = 200
    with Thief(broker.url, hinted()) as thief:
        ids = [str(cycle.submit("USER_LIST")) for _ in range(waiters)]
        began, reads, at_the_end = 0.0, 0, 0

        def finish() -> str:
            nonlocal began, reads, at_the_end
            eventually(lambda: len(wakeups()._waiting) == waiters)
            began, reads = time.monotonic(), db.said.count(READING)
            for task_id in ids:
                cycle.finish(UUID(task_id))
            at_the_end = db.said.count(READING)
            return "success"

        got = at_once([finish, *[lambda i=task_id: get(i) for task_id in ids]])  # type: ignore[misc]
        intervals = (time.monotonic() - began) / 1.0
        in_all = db.said.count(READING)
        eventually(lambda: thief.taken == waiters)

    assert set(got) == {"success"}
    batches = math.ceil(waiters / BATCH)
    assert in_all - reads <= batches * (intervals + 1)
    # Once all are final, one look finds all; another one may have been under way.
    assert in_all - at_the_end <= 2 * batches


def test_a_reply_queue_that_was_deleted_is_made_again_and_everything_looked_for(
    cycle: Cycle, broker: Broker, configure: Configure
) -> None:
    configure(fallback_interval=NEVER)
    queue = hinted()
    first = str(cycle.submit("USER_LIST"))

    def delete() -> str:
        eventually(lambda: first in wakeups()._waiting)
        with Connection(broker.url) as connection:
            connection.default_channel.queue_delete(queue)
        cycle.finish(UUID(first))
        return "success"

    assert at_once([lambda: get(first), delete]) == ["success", "success"]
    eventually(lambda: wakeups().replies.connected)
    second = str(cycle.submit("USER_LIST"))
    cycle.finish(UUID(second))
    assert get(second) == "success"


def test_hints_come_again_after_a_restart_of_the_broker(cycle: Cycle, configure: Configure) -> None:
    """A node of its own: nobody else's is restarted."""
    with PrivateRabbitMQ() as node:
        before = get_settings().broker_url
        configure(broker_url=node.url, fallback_interval=NEVER)
        reconnect()
        try:
            with closing(Broker(node.url)) as broker:
                broker.declare()
            hinted()
            first = str(cycle.submit("USER_LIST"))

            def restart() -> str:
                eventually(lambda: first in wakeups()._waiting)
                node.restart()
                cycle.finish(UUID(first))
                return "success"

            assert at_once([lambda: get(first), restart]) == ["success", "success"]
            eventually(lambda: wakeups().replies.connected)
            second = USER_LIST.delay()
            threading.Timer(0.2, cycle.finish, [UUID(second.id)]).start()
            assert get(second.id) == "success"
        finally:
            configure(broker_url=before)
            reconnect()


def test_parent_and_child_both_wait_after_a_fork(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")
    with subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, str(instruction_id)],
        env=environment(get_settings(), fallback_interval=NEVER),
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().strip() == "child waits"
        eventually(lambda: cycle.count("waiters") == 2)
        cycle.finish(instruction_id)
        assert parent.stdout.readline().strip() == "success 0"


def test_what_is_hinted_while_nobody_waits_is_not_waited_for_in_vain(
    cycle: Cycle, configure: Configure
) -> None:
    configure(fallback_interval=NEVER)
    hinted()
    ids = [cycle.submit("USER_LIST") for _ in range(20)]
    for instruction_id in ids:
        cycle.finish(instruction_id)
    early: Any = wakeups()._early
    eventually(lambda: len(early) == 20)

    assert [get(str(instruction_id)) for instruction_id in ids] == ["success"] * 20
