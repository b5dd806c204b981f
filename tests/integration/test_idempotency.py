"""Idempotency keys: a submission that is repeated is the same instruction."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from llmchatlinker.errors import LLMChatLinkerError
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once, eventually


def test_the_same_submission_under_a_key_is_the_same_instruction(cycle: Cycle) -> None:
    first = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")
    again = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")
    cycle.finish(first)
    later = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")

    assert first == again == later
    assert cycle.count("instructions") == 1
    assert len(cycle.broker.take_all("control")) == 1


@pytest.mark.parametrize(
    ("name", "data"), [("USER_CREATE", {"username": "bob"}), ("USER_GET", {"username": "ada"})]
)
def test_another_submission_under_the_same_key_is_a_conflict(
    cycle: Cycle, name: str, data: dict[str, Any]
) -> None:
    first = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")

    with pytest.raises(LLMChatLinkerError) as caught:
        cycle.submit(name, **data, idempotency_key="k1")

    assert caught.value.code == "conflict"
    assert caught.value.details == {"field": "idempotency_key", "instruction_id": str(first)}
    assert cycle.count("instructions") == 1


def test_the_order_of_fields_makes_no_other_submission(cycle: Cycle) -> None:
    first = cycle.submit("USER_CREATE", username="ada", profile="x", idempotency_key="k1")

    assert first == cycle.submit("USER_CREATE", profile="x", username="ada", idempotency_key="k1")


def test_racing_submitters_under_one_key_get_one_instruction(cycle: Cycle) -> None:
    submit = partial(cycle.submit, "USER_CREATE", username="ada", idempotency_key="k1")

    ids = set(at_once([submit] * 8))

    assert len(ids) == 1
    assert cycle.count("instructions") == 1
    assert len(cycle.broker.take_all("control")) == 1


def test_racing_clients_get_one_answer_under_one_key(scene: Scene) -> None:
    data = scene.turn | {"user_input": "Hello"}
    submit = partial(scene.cycle.submit, "LLM_RESPONSE_GENERATE", **data, idempotency_key="k1")

    def ask() -> Any:
        instruction_id = submit()
        scene.cycle.finish(instruction_id)
        eventually(lambda: scene.cycle.row(instruction_id).state == "final")
        return scene.cycle.envelope(instruction_id)

    envelopes = at_once([ask] * 4)

    assert all(envelope == envelopes[0] for envelope in envelopes)
    assert (len(scene.provider.calls), len(scene.messages())) == (1, 2)


def test_without_a_key_every_submission_is_its_own(cycle: Cycle) -> None:
    assert cycle.submit("USER_LIST") != cycle.submit("USER_LIST")


def test_a_key_of_an_instruction_that_is_just_being_withdrawn_is_free(cycle: Cycle) -> None:
    first = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")
    # Withdraws the first one between the second one's look and its answer.
    cycle.sql(
        f"""
        CREATE FUNCTION withdraw() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            UPDATE instructions SET state = 'withdrawn', final_at = now(), idempotency_key = NULL
             WHERE id = '{first}';
            RETURN NULL;
        END $$
        """
    )
    cycle.sql(
        "CREATE TRIGGER withdraw AFTER INSERT ON instructions"
        " FOR EACH STATEMENT EXECUTE FUNCTION withdraw()"
    )

    second = cycle.submit("USER_CREATE", username="ada", idempotency_key="k1")

    assert second != first
    assert cycle.row(second).state == "submitted"
