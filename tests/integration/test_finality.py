"""How an id becomes final: once, by whoever is first, and in time."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    LLMChatLinkerError,
)
from llmchatlinker.outcomes import Ending, finalise
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import at_once
from tests.servers import scripts


def late(cycle: Cycle, instruction_id: UUID) -> None:
    """Let the deadline be in the past."""
    cycle.sql(
        "UPDATE instructions SET deadline_at = now() - interval '1 second' WHERE id = :id",
        id=instruction_id,
    )


def end(instruction_id: UUID, otherwise: LLMChatLinkerError | None = None) -> Ending | None:
    return finalise(instruction_id, otherwise)


# --- deadlines ----------------------------------------------------------------------------------


def test_an_instruction_that_is_late_is_not_decoded(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    late(cycle, instruction_id)

    cycle.finish(instruction_id)

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.stage) == ("deadline_exceeded", "decode")
    assert cycle.count("users") == 0


def test_an_instruction_that_is_late_is_not_executed(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    late(cycle, instruction_id)

    assert cycle.execute(instruction_id)
    assert cycle.store(instruction_id)

    failed = failure(cycle.envelope(instruction_id))
    assert (failed.code, failed.stage) == ("deadline_exceeded", "execute")
    assert cycle.count("users") == 0


def test_a_generation_that_is_late_asks_no_provider(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    late(scene.cycle, instruction_id)

    scene.cycle.execute(instruction_id)
    scene.cycle.store(instruction_id)

    assert failure(scene.cycle.envelope(instruction_id)).code == "deadline_exceeded"
    assert scene.provider.calls == []
    assert scene.cycle.count("attempts") == 0


def test_work_that_was_done_in_time_counts_however_late_it_is_stored(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.execute(instruction_id)
    late(cycle, instruction_id)

    cycle.store(instruction_id)

    assert cycle.envelope(instruction_id)["status"] == "success"


@pytest.mark.parametrize("stage", ["submitted", "decoded"])
def test_a_waiting_client_closes_what_is_late_itself(cycle: Cycle, stage: str) -> None:
    name, data = "USER_CREATE", {"username": "ada"}
    instruction_id = (
        cycle.submit(name, **data) if stage == "submitted" else cycle.decoded(name, **data)
    )
    late(cycle, instruction_id)

    failed = failure(cycle.envelope(instruction_id))

    assert (failed.code, failed.stage) == ("deadline_exceeded", "store")
    assert cycle.row(instruction_id).state == "final"
    assert cycle.execute(instruction_id)
    assert cycle.count("users") == 0


def test_a_waiting_client_keeps_work_that_is_done_and_only_stored_late(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.execute(instruction_id)
    late(cycle, instruction_id)

    assert cycle.envelope(instruction_id)["status"] == "success"


@pytest.mark.parametrize(
    ("name", "data", "deadline", "seconds"),
    [
        ("USER_LIST", {}, None, 60),
        ("LLM_RESPONSE_REGENERATE", {"message_id": 1}, None, 600),
        ("USER_LIST", {}, 5, 5),
        ("USER_LIST", {}, 0.25, 0.25),
    ],
)
def test_a_deadline_is_the_settings_or_the_callers(
    cycle: Cycle, name: str, data: dict[str, Any], deadline: float | None, seconds: float
) -> None:
    row = cycle.row(cycle.submit(name, **data, deadline=deadline))

    assert (row.deadline_at - row.submitted_at).total_seconds() == seconds


# --- first wins ---------------------------------------------------------------------------------


def test_an_id_that_is_open_has_no_end_without_an_outcome(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")

    assert end(instruction_id) is None
    assert cycle.row(instruction_id).final_at is None


def test_the_first_end_wins(cycle: Cycle) -> None:
    instruction_id = cycle.submit("USER_LIST")

    first = end(instruction_id, Cancelled())
    second = end(instruction_id, InternalError())

    assert first is not None
    assert second is None
    assert failure(cycle.envelope(instruction_id)).code == "cancelled"


def test_an_outcome_that_is_committed_beats_every_other_end(cycle: Cycle) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    cycle.execute(instruction_id)

    assert end(instruction_id, Cancelled()) is not None
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_of_many_ends_at_once_one_wins(cycle: Cycle) -> None:
    user_id = cycle.do("USER_CREATE", username="ada")["user"]["user_id"]
    cycle.do("USER_INSTRUCTION_RECORDING_ENABLE", user_id=user_id)
    ends: list[LLMChatLinkerError] = [Cancelled(), InternalError(), DeadlineExceeded()]
    for _ in range(5):
        instruction_id = cycle.decoded("USER_GET", user_id=user_id)

        found = at_once([partial(end, instruction_id, other) for other in ends * 3])

        winners = [ends[n % 3].code for n, ending in enumerate(found) if ending is not None]
        assert winners == [failure(cycle.envelope(instruction_id)).code]
        assert cycle.count("records", "instruction_id = :id", id=instruction_id) == 1


def test_of_work_and_its_end_at_once_one_wins_whole(cycle: Cycle) -> None:
    for number in range(10):
        instruction_id = cycle.decoded("USER_CREATE", username=f"user {number}")

        at_once(
            [
                lambda i=instruction_id: cycle.execute(i),
                lambda i=instruction_id: end(i, Cancelled()) is not None,
            ]
        )
        cycle.store(instruction_id)

        envelope = cycle.envelope(instruction_id)
        made = cycle.count("users", "username = :name", name=f"user {number}")
        assert made == (1 if envelope["status"] == "success" else 0)


def test_after_its_end_an_instruction_does_no_work(scene: Scene) -> None:
    instruction_id = scene.decoded("Hello")
    end(instruction_id, Cancelled())

    scene.cycle.finish(instruction_id)

    assert failure(scene.cycle.envelope(instruction_id)).code == "cancelled"
    assert scene.provider.calls == []


@pytest.mark.usefixtures("unwatched")
def test_an_answer_that_comes_after_the_end_is_in_the_ledger_only(scene: Scene) -> None:
    def cancel(exchange: scripts.Exchange) -> None:
        end(instruction_id, Cancelled())
        scripts.echo(exchange)

    scene.provider.script(cancel)
    instruction_id = scene.decoded("Hello")

    scene.cycle.execute(instruction_id)
    scene.cycle.store(instruction_id)

    assert failure(scene.cycle.envelope(instruction_id)).code == "cancelled"
    assert [m["status"] for m in scene.messages()] == ["complete", "cancelled"]
    assert scene.cycle.sql("SELECT status, total_tokens FROM attempts") == [("answered", 4)]
