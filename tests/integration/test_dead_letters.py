"""Dead letters: taken off their queue, kept without their text, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest

from llmchatlinker.dead_letters import collecting
from llmchatlinker.dead_letters.collecting import collect
from llmchatlinker.errors import Unavailable
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.topology import DEAD_LETTER_QUEUE, DECODE_TASK, EXCHANGE, STORE_TASK
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import eventually
from tests.servers.proxy import Proxy

MARK = "xyzzy"
CREATE_TASK = "llmchatlinker.user.user_create"


def headers(instruction_id: UUID, task: str, reason: str, queue: str = "user") -> dict[str, Any]:
    """As RabbitMQ leaves them on a message of ours."""
    death = {"count": 1, "reason": reason, "queue": queue, "exchange": EXCHANGE}
    text = str(instruction_id)
    return {"lang": "py", "task": task, "id": text, "root_id": text, "x-death": [death]}


def die(
    cycle: Cycle, instruction_id: UUID, task: str = CREATE_TASK, reason: str = "delivery_limit"
) -> None:
    """Its message is on the dead-letter queue, and nowhere else."""
    cycle.broker.declare()
    for queue in ("control", "user"):
        cycle.broker.take_all(queue)
    body = json.dumps([[str(instruction_id)], {}, {"chain": None}]).encode()
    cycle.broker.publish(body, DEAD_LETTER_QUEUE, headers=headers(instruction_id, task, reason))
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)


def rows(cycle: Cycle) -> list[Any]:
    return cycle.sql("SELECT * FROM dead_letters ORDER BY id")


def test_an_innocent_message_is_published_again(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id)

    assert collect() == {"republished": 1}

    assert cycle.deliver("user") == [instruction_id]
    assert cycle.envelope(instruction_id)["status"] == "success"
    (row,) = rows(cycle)
    assert (row.queue, row.reason, row.task) == ("user", "delivery_limit", CREATE_TASK)
    assert (row.instruction_id, row.became) == (instruction_id, "republished")
    assert row.content_type == "application/json"
    assert cycle.broker.ready(DEAD_LETTER_QUEUE) == 0


@pytest.mark.parametrize("reason", ["expired", "maxlen", "rejected"])
def test_so_is_one_that_died_of_anything_else(cycle: Cycle, reason: str) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id, reason=reason)

    assert collect() == {"republished": 1}
    assert cycle.deliver("user") == [instruction_id]


def test_what_died_as_often_as_a_poison_may_be_begun_ends_its_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    became = []
    for _ in range(4):
        die(cycle, instruction_id)
        became += collect()

    assert became == ["republished"] * 3 + ["closed"]
    assert failure(cycle.envelope(instruction_id)).code == "poisoned"
    assert cycle.count("users") == 0


def test_poison_ends_its_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.sql("UPDATE instructions SET starts = 3, starts_of = 'decoded'")
    die(cycle, instruction_id)

    assert collect() == {"closed": 1}

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.stage, failed.details) == ("poisoned", "execute", {"starts": 3})


def test_starts_of_an_earlier_stage_are_no_poison(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.sql("UPDATE instructions SET starts = 3, starts_of = 'submitted'")
    die(cycle, instruction_id)

    assert collect() == {"republished": 1}


def test_a_message_for_a_task_of_nobody_ends_its_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id, "llmchatlinker.user.user_dance", "rejected")

    assert collect() == {"closed": 1}

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.details) == ("internal", {"exception": "NotRegistered"})


def test_a_message_whose_work_is_done_changes_nothing(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id, DECODE_TASK)
    assert collect() == {"settled": 1}

    cycle.finish(instruction_id, CREATE_TASK)
    die(cycle, instruction_id, STORE_TASK)

    assert collect() == {"settled": 1}
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_a_message_under_a_live_call_changes_nothing(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    scene.cycle.sql(
        "INSERT INTO attempts (instruction_id, number, provider_name, llm_name, worker, lease_until)"
        " VALUES (:id, 1, 'scripted', 'echo', 'another', now() + interval '1 minute')",
        id=instruction_id,
    )
    die(scene.cycle, instruction_id, "llmchatlinker.llm.llm_response_generate")

    assert collect() == {"settled": 1}


def test_what_reached_no_queue_is_the_sweepers_to_publish(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    body = json.dumps([[str(instruction_id)], {}, {"chain": None}]).encode()
    told = headers(instruction_id, CREATE_TASK, "") | {"x-death": None}
    cycle.broker.declare()
    cycle.broker.publish(body, "no.such.queue", EXCHANGE, headers=told)
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert collect() == {"settled": 1}
    assert [(row.reason, row.queue) for row in rows(cycle)] == [("unroutable", None)]


NONSENSE: dict[str, dict[str, Any]] = {
    "a pickle": {
        "body": b"\x80\x04xyzzy",
        "content_type": "application/x-python-serialize",
        "content_encoding": "binary",
    },
    "yaml": {"body": b"- xyzzy", "content_type": "application/x-yaml"},
    "msgpack": {"body": b"\x81xyzzy", "content_type": "application/x-msgpack"},
    "an unknown encoding": {"body": b"xyzzy", "content_encoding": "klingon"},
    "no UTF-8": {"body": b'["xyzzy \xff"]'},
    "foreign headers": {"body": b"{}", "headers": {"task": f"{MARK} {MARK}", "x-death": MARK}},
    "deaths that are none": {"body": b"{}", "headers": {"x-death": [MARK, 5]}},
    "deaths of nobody": {"body": b"{}", "headers": {"x-death": [{"reason": f"{MARK} !"}]}},
    "a content type that is a text": {"body": b"", "content_type": f"{MARK} {MARK} \n"},
    "a null": {"body": b"\x00\x00", "headers": {"task": f"{MARK}\x00!", "id": 5}},
    "much": {"body": b"x" * 3_000_000},
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_is_none_of_ours_is_kept_without_its_text(
    cycle: Cycle, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = dict(NONSENSE[name])
    cycle.broker.declare()
    size = len(message["body"])
    cycle.broker.publish(message.pop("body"), DEAD_LETTER_QUEUE, **message)
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert collect() == {"kept": 1}

    (row,) = rows(cycle)
    assert (row.became, row.size, row.instruction_id) == ("kept", size, None)
    assert MARK not in cycle.everything() + caplog.text
    assert cycle.broker.ready(DEAD_LETTER_QUEUE) == 0


def test_a_message_of_an_instruction_that_is_not_there_is_kept(cycle: Cycle) -> None:
    die(cycle, new_instruction_id())

    assert collect() == {"kept": 1}


def test_forged_headers_end_no_instruction(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    told = headers(instruction_id, "llmchatlinker.user.user_dance", "rejected")
    cycle.broker.declare()
    cycle.broker.publish(b'{"a": 1}', DEAD_LETTER_QUEUE, headers=told)
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert collect() == {"kept": 1}
    assert cycle.row(instruction_id).state == "decoded"


def test_who_dies_before_acknowledging_leaves_one_row(
    cycle: Cycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id)

    def vanish(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "publish", vanish)
        with pytest.raises(ConnectionResetError):
            collect()
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert collect() == {"republished": 1}
    assert [row.became for row in rows(cycle)] == ["republished"]
    assert cycle.deliver("user") == [instruction_id]


def test_while_postgresql_is_gone_the_letter_stays_where_it_is(
    cycle: Cycle, db: Proxy, configure: Configure
) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    die(cycle, instruction_id)
    configure(client_patience=0.2)
    db.cut()

    with pytest.raises(Unavailable):
        collect()

    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)
    db.mend()
    assert collect() == {"republished": 1}


def test_another_apps_message_is_kept_with_the_name_of_its_task(cycle: Cycle) -> None:
    told = {"lang": "py", "task": "shop.tasks.sell", "id": str(uuid4())}
    cycle.broker.declare()
    cycle.broker.publish(b"[[], {}, {}]", DEAD_LETTER_QUEUE, headers=told)
    eventually(lambda: cycle.broker.ready(DEAD_LETTER_QUEUE) == 1)

    assert collect() == {"kept": 1}
    assert [row.task for row in rows(cycle)] == ["shop.tasks.sell"]
