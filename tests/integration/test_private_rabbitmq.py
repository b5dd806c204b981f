"""The tests' own RabbitMQ nodes are real, separate, on the loopback only, and leave nothing behind."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests
from kombu import Connection, Queue

from tests.fixtures.servers import cannot_test
from tests.fixtures.threads import eventually
from tests.servers import HOST, free_ports
from tests.servers.install import System, advice, find_rabbitmq
from tests.servers.rabbitmq import PrivateRabbitMQ, RabbitMQError

QUEUE = Queue("letters", durable=True, queue_arguments={"x-queue-type": "quorum"})


def publish(url: str, body: str) -> None:
    """Put a persistent message onto the queue; return when the broker has confirmed it."""
    with Connection(url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish(
            body, exchange="", routing_key=QUEUE.name, declare=[QUEUE], confirm_timeout=10
        )


def take(url: str, patience: float = 5) -> str | None:
    """Take one message off the queue, waiting ``patience`` seconds for it; None if none comes."""
    with Connection(url) as connection:
        queue = QUEUE(connection.default_channel)
        queue.declare()
        deadline = time.monotonic() + patience
        while (message := queue.get()) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if message is None:
            return None
        message.ack()
        return str(message.payload)


def processes(directory: Path) -> list[psutil.Process]:
    """Every living process whose home is a node's directory: VM, epmd, and their helpers."""
    found = []
    for process in psutil.process_iter():
        try:
            home = process.environ().get("HOME")
            if home == str(directory) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:  # it has just ended, or is another user's
            continue
    return found


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[PrivateRabbitMQ, PrivateRabbitMQ]]:
    if find_rabbitmq() is None:
        cannot_test("RabbitMQ", advice(System.here()))
    with PrivateRabbitMQ() as first, PrivateRabbitMQ() as second:
        yield first, second


@pytest.fixture
def node(nodes: tuple[PrivateRabbitMQ, PrivateRabbitMQ]) -> PrivateRabbitMQ:
    return nodes[0]


def test_two_nodes_at_once_keep_their_messages_apart(
    nodes: tuple[PrivateRabbitMQ, PrivateRabbitMQ],
) -> None:
    first, second = nodes
    publish(first.url, "to the first")
    publish(second.url, "to the second")
    assert take(first.url) == "to the first"
    assert take(second.url) == "to the second"


def test_nothing_listens_beyond_the_loopback(
    nodes: tuple[PrivateRabbitMQ, PrivateRabbitMQ],
) -> None:
    for node in nodes:
        found = processes(node.directory)
        names = {process.name() for process in found}
        assert {"beam.smp", "epmd"} <= names
        listening = [
            (process.name(), entry.laddr.ip)
            for process in found
            for entry in process.net_connections("inet")
            if not entry.raddr
        ]
        assert len([name for name, _ in listening if name == "beam.smp"]) == 2  # AMQP, distribution
        assert all(ipaddress.ip_address(address).is_loopback for _, address in listening)


def test_a_virtual_host_is_a_broker_of_its_own_until_it_is_deleted(node: PrivateRabbitMQ) -> None:
    name = 'test "é" 1/2'
    url = node.add_vhost(name)
    publish(url, "inside")
    assert take(node.url, patience=0.5) is None
    assert take(url) == "inside"
    node.delete_vhost(name)
    with pytest.raises(Connection(url).connection_errors), Connection(url) as connection:
        connection.connect()
    with pytest.raises(RabbitMQError, match="no_such_vhost"):
        node.delete_vhost(name)


def test_without_erl_call_rabbitmqctl_does_the_same(
    node: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.servers.rabbitmq.shutil.which", lambda _name: None)
    url = node.add_vhost("slowly")
    with pytest.raises(RabbitMQError, match="not a valid delivery limit"):
        node.set_policy("slowly", "limit", ".*", {"delivery-limit": -5})
    publish(url, "inside")
    node.delete_vhost("slowly")


def test_a_policy_applies_and_a_wrong_one_is_refused(node: PrivateRabbitMQ) -> None:
    url = node.add_vhost("policies")
    publish(url, "so that there is a queue")
    node.set_policy("policies", "limit", "^letters$", {"delivery-limit": 7}, priority=3)
    listed = json.loads(
        node.ctl("list_queues", "-p", "policies", "name", "policy", "--formatter", "json")
    )
    assert listed == [{"name": "letters", "policy": "limit"}]
    with pytest.raises(RabbitMQError, match="not recognised"):
        node.set_policy("policies", "wrong", ".*", {"no-such-key": 7})
    node.delete_vhost("policies")


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_the_figures_of_a_queue_are_those_of_now(node: PrivateRabbitMQ, kind: str) -> None:
    url = node.add_vhost(f"figures-{kind}")
    with Connection(url) as connection:
        channel = connection.default_channel
        arguments = {"x-queue-type": kind}
        channel.queue_declare(kind, durable=True, auto_delete=False, arguments=arguments)
        channel.confirm_select()
        for _ in range(3):
            message = channel.prepare_message(b"one")
            channel.basic_publish_confirm(message, exchange="", routing_key=kind)
        taken = channel.basic_get(kind)
        # Whoever has taken a message of a quorum queue is a consumer of it until it is acknowledged.
        assert node.queues(f"figures-{kind}") == {kind: (2, 1, 1 if kind == "quorum" else 0)}
        channel.basic_ack(taken.delivery_tag)
        eventually(lambda: node.queues(f"figures-{kind}") == {kind: (2, 0, 0)})
    node.delete_vhost(f"figures-{kind}")


def test_rabbitmqctl_complaints_are_errors(node: PrivateRabbitMQ) -> None:
    with pytest.raises(RabbitMQError, match=r"rabbitmqctl failed: .*'none' does not exist"):
        node.ctl("delete_vhost", "none")


def test_a_frozen_node_answers_nothing_and_a_thawed_one_goes_on(node: PrivateRabbitMQ) -> None:
    options = {"read_timeout": 1}
    node.freeze()
    try:
        with (
            pytest.raises(OSError, match="timed out"),
            Connection(node.url, connect_timeout=1, transport_options=options) as connection,
        ):
            connection.connect()
    finally:
        node.thaw()
    publish(node.url, "after the thaw")
    assert take(node.url) == "after the thaw"


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_a_restart_keeps_the_url_and_every_confirmed_message(
    node: PrivateRabbitMQ, killed: bool
) -> None:
    url, pid = node.url, node.pid
    publish(url, "confirmed")
    if killed:
        node.kill()
        assert not psutil.pid_exists(pid)
    node.restart()
    assert (node.url, node.pid != pid) == (url, True)
    assert take(url) == "confirmed"


def test_a_node_with_a_taken_port_starts_on_others_and_leaves_nothing_when_it_stops(
    nodes: tuple[PrivateRabbitMQ, PrivateRabbitMQ],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    asked: list[int] = []
    taken = [
        entry.laddr.port
        for process in processes(nodes[0].directory)
        for entry in process.net_connections("tcp")
        if process.name() == "epmd" and entry.status == psutil.CONN_LISTEN
    ]

    def first_a_taken_one(count: int) -> list[int]:
        asked.append(count)
        ports = free_ports(count)
        return ports if len(asked) > 1 else [*ports[:2], taken[0], *ports[3:]]

    monkeypatch.setattr("tests.servers.rabbitmq.free_ports", first_a_taken_one)
    directory = tmp_path / "node"
    third = PrivateRabbitMQ(directory, management=True)
    third.start()
    try:
        assert len(asked) == 2
        answer = requests.get(third.management_url + "/api/overview", timeout=10)
        assert answer.json()["node"].startswith("llmchatlinker-")
        assert {"erl_child_setup", "inet_gethost"} <= {
            process.name() for process in processes(directory)
        }
    finally:
        third.stop()
    assert processes(directory) == []
    assert not directory.exists()
    third.stop()  # once more does no harm


def test_a_node_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    if find_rabbitmq() is None:
        cannot_test("RabbitMQ", advice(System.here()))
    directory = tmp_path / "node"
    node = PrivateRabbitMQ(directory, settings={"no.such.setting": "1"})
    with pytest.raises(RabbitMQError, match=r"unknown variable: no\.such\.setting"):
        node.start()
    assert processes(directory) == []
    assert not directory.exists()


def test_a_directory_that_holds_something_is_refused_and_left_alone(tmp_path: Path) -> None:
    if find_rabbitmq() is None:
        cannot_test("RabbitMQ", advice(System.here()))
    (tmp_path / "precious").touch()
    with pytest.raises(RabbitMQError, match="is not empty"):
        PrivateRabbitMQ(tmp_path).start()
    assert (tmp_path / "precious").exists()


def test_a_node_that_was_not_started_says_so() -> None:
    node = PrivateRabbitMQ()
    node.stop()
    for use in (lambda: node.pid, lambda: node.directory, node.freeze, node.restart):
        with pytest.raises(RabbitMQError, match="start"):
            use()
    with pytest.raises(RabbitMQError, match="management=True"):
        _ = node.management_url
    assert HOST in node.url
