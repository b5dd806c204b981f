"""``llmchatlinker doctor`` of RabbitMQ, workers and clocks: what it finds, it says how to mend."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.clock import WrongClock
from llmchatlinker.cli import broker_facts
from llmchatlinker.embedded.processes import ManagedProcess, wait_until
from llmchatlinker.settings import get_settings
from llmchatlinker.topology import DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, GENERATE, QUEUE_NAMES
from tests.fixtures.brokers import Broker, reconnect
from tests.fixtures.commands import Doctor, Run
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle
from tests.fixtures.servers import cannot_test
from tests.fixtures.threads import eventually
from tests.fixtures.workers import START_SECONDS, STOP_SECONDS, StartWorker, environment
from tests.servers.install import InstallError
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError

HOUR = 3600


@contextmanager
def started(celery: str, folder: Path) -> Iterator[ManagedProcess]:
    """A worker, by the command line that the doctor named."""
    heartbeat = folder / "named.alive"
    process = ManagedProcess(
        "the worker that was named",
        [sys.executable, "-m", *shlex.split(celery)],
        environment(get_settings(), heartbeat_file=heartbeat),
        folder / "named.log",
        cwd=folder,
        stop_signals=(signal.SIGTERM, signal.SIGQUIT),
    )
    process.start()
    try:
        wait_until(heartbeat.exists, START_SECONDS, process)
        yield process
    finally:
        process.stop(STOP_SECONDS)


def celery_command(remedy: str) -> str:
    """The command that is in it, to its end."""
    found = re.search(r"celery -A llmchatlinker worker .*", remedy)
    assert found is not None, remedy
    return found[0]


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateRabbitMQ]:
    """A broker with the HTTP API, over which policies and the clock are seen."""
    made = PrivateRabbitMQ(management=True)
    try:
        made.start()
    except (RabbitMQError, InstallError) as error:
        cannot_test("RabbitMQ", error)
    yield made
    made.stop()


@pytest.fixture
def shop(node: PrivateRabbitMQ, cycle: Cycle, configure: Configure) -> Iterator[Broker]:
    """A virtual host of that broker's with nothing in it, in place of the test's other one."""
    configure(broker_url=node.add_vhost("shop"), broker_api_url=node.management_url)
    reconnect()
    broker = Broker(get_settings().broker_url)
    yield broker
    broker.close()
    reconnect()
    node.delete_vhost("shop")


def rabbitmqctl(node: PrivateRabbitMQ, said: str) -> None:
    """Run the commands of rabbitmqctl that are in what was said, as they are."""
    commands = re.findall(r"rabbitmqctl ([^;&`]+)", said)
    assert commands, said
    for line in commands:
        node.ctl(*shlex.split(line))


def test_queues_of_another_type_are_found_and_their_remedy_deletes_them(
    node: PrivateRabbitMQ, shop: Broker, worker: StartWorker, doctor: Doctor
) -> None:
    shop.declare()
    with shop._connection.channel() as channel:
        for name in ("user", DEAD_LETTER_QUEUE):
            channel.queue_delete(name)
            channel.queue_declare(name, durable=True, auto_delete=False)

    state, found, remedy = doctor(code=1)["queues"]

    assert (state, found) == ("fail", f"not quorum queues: user, {DEAD_LETTER_QUEUE}")
    assert remedy.startswith("Stop the workers, let these queues run empty, then ")
    assert remedy.endswith("; workers make them anew.")
    rabbitmqctl(node, remedy)
    assert doctor(code=1)["queues"] == (
        "warn",
        f"not there yet: user, {DEAD_LETTER_QUEUE}",
        "The first worker that starts makes them.",
    )
    worker()
    assert doctor("--no-providers", code=1)["queues"][0] == "ok"  # it has no policies yet


@pytest.mark.parametrize("way", ["apply", "apply --print"])
def test_missing_policies_are_found_and_broker_apply_sets_them(
    way: str, node: PrivateRabbitMQ, shop: Broker, doctor: Doctor, command: Run
) -> None:
    node.set_policy("shop", "llmchatlinker", ".*", {"max-length": 5})

    state, found, remedy = doctor(code=1)["policies"]

    assert state == "fail"
    assert found.startswith("missing or different: llmchatlinker")
    assert remedy == (
        "`llmchatlinker broker apply` sets them; with --print it prints rabbitmqctl commands."
    )
    said = command("broker", *way.split()).stdout
    if way == "apply --print":
        for line in said.splitlines():
            node.ctl(*shlex.split(line)[1:])
    assert doctor(code=1)["policies"][0] == "ok"  # no worker runs


def test_a_queue_that_no_worker_serves_is_found_and_the_named_worker_serves_it(
    worker: StartWorker, doctor: Doctor, tmp_path: Path
) -> None:
    worker(*(name for name in QUEUE_NAMES if name not in ("user", GENERATE)))

    state, found, remedy = doctor(code=1)["workers"]

    assert (state, found) == ("fail", f"nobody serves user, {GENERATE}")
    with started(celery_command(remedy), tmp_path):
        state, found, _ = doctor()["workers"]
        assert (state, found[:2]) == ("ok", "2 ")


@pytest.mark.parametrize("unanswered", [0, 1, 2])
def test_a_worker_that_stands_still_for_a_moment_is_found(
    worker: StartWorker, monkeypatch: pytest.MonkeyPatch, unanswered: int
) -> None:
    """``unanswered``: how often RabbitMQ counts nobody at first."""
    looks = 0
    count = broker_facts._queue

    def queue(connection: Any, name: str) -> broker_facts.Queue:
        nonlocal looks
        looks += 1
        is_busy = looks <= unanswered * len(QUEUE_NAMES)
        return broker_facts.Queue(name, 0, 0) if is_busy else count(connection, name)

    monkeypatch.setattr(broker_facts, "_queue", queue)
    process = worker()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    later = threading.Timer(2 * broker_facts.ANSWER_SECONDS, os.kill, (process.pid, signal.SIGCONT))
    later.start()

    (found,) = broker_facts.workers()

    later.join()
    assert (found.queues, found.slots) == (sorted(QUEUE_NAMES), 8)


def test_without_any_worker_late_instructions_and_dead_letters_are_found_until_the_named_one_runs(
    cycle: Cycle, doctor: Doctor, tmp_path: Path
) -> None:
    cycle.broker.declare()
    cycle.submit("USER_LIST")
    cycle.sql("UPDATE instructions SET deadline_at = now() - interval '2 minutes'")
    cycle.broker.publish(b"not an order", "", exchange=DEAD_LETTER_EXCHANGE)

    found = doctor(code=1)

    assert found["deadlines"] == (
        "fail",
        "1 instructions are open although their deadline is over",
        "Start a worker of `database`: its sweeper ends them.",
    )
    assert found["dead letters"] == (
        "warn",
        "1 not taken in yet",
        "Workers of `database` take them in every few seconds: start one, and read its log.",
    )
    assert found["workers"][:2] == ("fail", "none answers")
    assert found["workers"][2].startswith("Start one for all queues: ")
    assert "providers" not in found  # nobody is there to ask them
    with started(celery_command(found["workers"][2]), tmp_path):
        eventually(lambda: cycle.count("instructions", "final_at IS NULL") == 0)
        eventually(lambda: cycle.count("dead_letters") == 1)
        mended = doctor()
        for name in ("deadlines", "dead letters", "workers"):
            assert mended[name][0] == "ok"


def test_a_clock_that_differs_is_found_until_it_is_set(
    shop: Broker, worker: StartWorker, doctor: Doctor, command: Run, tmp_path: Path
) -> None:
    try:
        clock = WrongClock(tmp_path)
    except InstallError as error:
        cannot_test("libfaketime", error)
    command("broker", "apply")
    worker()
    clock.step(HOUR)

    state, found, remedy = doctor("--no-providers", env=clock.environment)["clocks"]

    assert (state, remedy) == ("warn", "Set this machine's and the servers' clocks by NTP.")
    assert re.fullmatch(r"PostgreSQL -3(600|599)\.\d s, RabbitMQ -3(599|600|601)\.\d s", found), (
        found
    )
    clock.step(0)
    assert doctor("--no-providers", env=clock.environment)["clocks"][0] == "ok"
