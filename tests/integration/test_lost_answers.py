"""A commit whose answer is lost looks like a failure, and is none: its work is there once."""

from __future__ import annotations

import pytest

from llmchatlinker import orchestrator, outcomes, stages
from llmchatlinker.db.prepared import prepared
from llmchatlinker.orchestrator import submit
from llmchatlinker.units import straight
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene
from tests.servers.provider import Exchange, echo
from tests.servers.proxy import Proxy


def run_of(sql: str) -> bytes:
    """The words on the wire when the prepared statement is run."""
    return f"EXECUTE {prepared(sql).name}".encode("ascii")


def test_a_submission_whose_answer_is_lost_is_submitted_once(cycle: Cycle, db: Proxy) -> None:
    submit("USER_LIST", {})
    db.lose_the_answer_to(run_of(orchestrator._INSERT))

    instruction_id = submit("USER_CREATE", {"username": "ada"})

    assert db.cuts == 1
    assert cycle.count("instructions", "type = 'USER_CREATE'") == 1
    assert cycle.row(instruction_id).state == "submitted"


@pytest.mark.parametrize("stage", ["decode", "execute"])
def test_a_stage_whose_commits_answer_is_lost_works_once(
    cycle: Cycle, db: Proxy, stage: str
) -> None:
    instruction_id = cycle.submit("USER_CREATE", username="ada")
    if stage == "execute":
        cycle.decode(instruction_id)
    db.lose_the_answer_to(b"COMMIT" if stage == "execute" else run_of(stages._DECODE))

    assert cycle.finish(instruction_id, f"llmchatlinker.control.{stage}")

    assert db.cuts == 1
    assert cycle.envelope(instruction_id)["status"] == "success"
    assert cycle.count("users") == 1


def test_a_decode_that_looks_something_up_works_once_too(cycle: Cycle, db: Proxy) -> None:
    cycle.do("USER_CREATE", username="ada")
    instruction_id = cycle.submit("CHAT_CREATE", title="Hello", usernames=["ada"])
    db.lose_the_answer_to(run_of(straight.DECODED))

    assert cycle.finish(instruction_id, "llmchatlinker.control.decode")

    assert db.cuts == 1
    assert cycle.envelope(instruction_id)["status"] == "success"
    assert cycle.count("chats") == 1


def test_a_turn_whose_decode_is_not_answered_is_answered_once(scene: Scene, db: Proxy) -> None:
    instruction_id = scene.submit("Hello")
    db.lose_the_answer_to(run_of(straight._DECODED_TURN))

    assert scene.cycle.finish(instruction_id, "llmchatlinker.control.decode")

    assert db.cuts == 1
    assert scene.cycle.envelope(instruction_id)["status"] == "success"
    assert len(scene.provider.calls) == 1


def test_a_list_whose_commits_answer_is_lost_is_done(cycle: Cycle, db: Proxy) -> None:
    instruction_id = cycle.decoded("USER_LIST")
    db.lose_the_answer_to(b"COMMIT")

    assert cycle.execute(instruction_id)

    assert db.cuts == 1
    assert cycle.store(instruction_id)
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_a_store_whose_answer_is_lost_has_stored(cycle: Cycle, db: Proxy) -> None:
    instruction_id = cycle.decoded("USER_CREATE", username="ada")
    cycle.execute(instruction_id)
    db.lose_the_answer_to(run_of(outcomes._FINALISE))

    assert cycle.store(instruction_id)

    assert db.cuts == 1
    assert cycle.envelope(instruction_id)["status"] == "success"


def test_a_claim_whose_commits_answer_is_lost_still_makes_its_call(scene: Scene, db: Proxy) -> None:
    instruction_id = scene.decoded("Hello")
    db.lose_the_answer_to(b"COMMIT")

    assert scene.cycle.execute(instruction_id)

    assert db.cuts == 1
    assert len(scene.provider.calls) == 1
    assert scene.said() == ["Hello", "You said: Hello"]


def test_an_answer_whose_commits_answer_is_lost_is_there_once(scene: Scene, db: Proxy) -> None:
    def lose(exchange: Exchange) -> None:
        db.lose_the_answer_to(b"COMMIT")
        echo(exchange)

    scene.provider.script(lose)

    assert scene.ask("Hello")["content"] == "You said: Hello"
    assert scene.cycle.count("messages") == 2
    assert len(scene.provider.calls) == 1
