"""Queues, routes and policies as the broker gets them."""

from __future__ import annotations

import json
import re
import runpy

import pytest

from llmchatlinker import broker_policies
from llmchatlinker.celery_app import ROOT
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.settings import Settings
from llmchatlinker.topology import (
    DEAD_LETTER_QUEUE,
    DECODE_TASK,
    QUEUE_NAMES,
    STORE_TASK,
    dead_letter_queue,
    route,
    task_queues,
)


def test_there_is_a_queue_per_unit_and_one_for_generations() -> None:
    names = [queue.name for queue in task_queues()]

    assert names == ["control", "user", "chat", "llm", "llm.generate", "database"]


def test_every_queue_has_a_binding_of_its_own() -> None:
    for queue in task_queues():
        assert queue.routing_key == queue.name
        assert queue.exchange.name == "llmchatlinker"


def test_every_queue_is_a_durable_quorum_queue_and_nothing_else() -> None:
    for queue in (*task_queues(), dead_letter_queue):
        assert queue.durable
        assert queue.queue_arguments == {"x-queue-type": "quorum"}


def test_no_worker_consumes_dead_letters() -> None:
    assert DEAD_LETTER_QUEUE not in QUEUE_NAMES


@pytest.mark.parametrize("name", sorted(INSTRUCTION_SET))
def test_an_instructions_task_goes_to_its_queue(name: str) -> None:
    assert route(INSTRUCTION_SET[name].task_name) == {"queue": INSTRUCTION_SET[name].queue}


def test_the_stages_go_to_their_units() -> None:
    assert route(DECODE_TASK) == {"queue": "control"}
    assert route(STORE_TASK) == {"queue": "database"}


@pytest.mark.parametrize("name", ["celery.chord", "mine.user.x", "llmchatlinker.user", "x", ""])
def test_no_other_task_is_routed(name: str) -> None:
    assert route(name) is None


def test_the_policy_is_for_every_queue_and_not_for_dead_letters() -> None:
    pattern = broker_policies.policies()["llmchatlinker-queues"]["pattern"]

    assert all(re.search(pattern, name) for name in QUEUE_NAMES)
    assert not re.search(pattern, DEAD_LETTER_QUEUE)
    assert not re.search(pattern, "llmXgenerate")


def test_the_delivery_limit_is_set_and_high() -> None:
    assert broker_policies.policies()["llmchatlinker-queues"]["definition"]["delivery-limit"] >= 100


def test_definitions_and_commands_say_the_same_as_the_policies() -> None:
    policies = broker_policies.policies()
    commands = broker_policies.commands(Settings(broker_url="amqp://mq/chats"))
    definitions = broker_policies.definitions("chats")["policies"]

    assert [entry["name"] for entry in definitions] == list(policies)
    for command, entry in zip(commands, definitions, strict=True):
        assert entry["name"] in command
        assert "-p 'chats'" in command
        assert json.dumps(entry["definition"]) in command


def test_celery_takes_json_and_nothing_else() -> None:
    config = runpy.run_path(str(ROOT / "celeryconfig.py"))

    assert config["accept_content"] == config["result_accept_content"] == ["json"]
    assert config["task_serializer"] == config["result_serializer"] == "json"


def test_celery_acknowledges_late_and_one_message_a_slot() -> None:
    config = runpy.run_path(str(ROOT / "celeryconfig.py"))

    assert config["task_acks_late"] is True
    assert config["task_reject_on_worker_lost"] is True
    assert config["worker_prefetch_multiplier"] == 1
    assert config["broker_transport_options"]["confirm_publish"] is True
