"""`llmchatlinker dead-letters` and `purge`: what a person does about what is left over."""

from __future__ import annotations

import json
from uuid import UUID

from click.testing import CliRunner, Result

from llmchatlinker.cli import main
from llmchatlinker.errors import Poisoned
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.outcomes import finalise
from tests.fixtures.cycles import Cycle
from tests.fixtures.scenes import Scene


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def line(*arguments: str) -> str:
    """The one line in which a command fails."""
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    (said,) = result.output.splitlines()
    return said


def letter(cycle: Cycle, instruction_id: UUID | None, became: str = "kept") -> str:
    rows = cycle.sql(
        "INSERT INTO dead_letters (queue, reason, task, instruction_id, size, became, fingerprint)"
        " VALUES ('user', 'rejected', 'llmchatlinker.user.user_create', :id, 84, :became, '')"
        " RETURNING id",
        id=instruction_id,
        became=became,
    )
    return str(rows[0][0])


def poisoned(cycle: Cycle, type: str = "USER_CREATE", **data: object) -> UUID:
    """An instruction that has ended as poison."""
    instruction_id = cycle.decoded(type, **data or {"username": "ada"})
    assert finalise(instruction_id, Poisoned())
    return instruction_id


def test_there_may_be_none(cycle: Cycle) -> None:
    assert run("dead-letters", "list").output == "There are no dead letters.\n"
    assert json.loads(run("dead-letters", "list", "--json").output) == []


def test_the_newest_are_listed_first_and_in_pages(cycle: Cycle) -> None:
    ids = [int(letter(cycle, None)) for _ in range(3)]
    kept = json.loads(run("dead-letters", "list", "--json", "--limit", "2").output)
    assert [item["id"] for item in kept] == ids[:0:-1]

    rest = json.loads(run("dead-letters", "list", "--json", "--before", str(ids[1])).output)
    assert [item["id"] for item in rest] == ids[:1]
    assert json.loads(run("dead-letters", "list", "--json", "--became", "closed").output) == []
    table = run("dead-letters", "list").output
    assert all(word in table for word in ("instruction id", "rejected", "user", "kept"))


def test_one_is_shown_with_its_instruction_and_without_its_text(cycle: Cycle) -> None:
    instruction_id = poisoned(cycle, username="xyzzy")
    number = letter(cycle, instruction_id)

    shown = json.loads(run("dead-letters", "show", number, "--json").output)

    assert shown["instruction_id"] == str(instruction_id)
    assert (shown["instruction_type"], shown["instruction_error"]) == ("USER_CREATE", "poisoned")
    assert "instruction state: final" in run("dead-letters", "show", number).output
    assert "xyzzy" not in run("dead-letters", "show", number).output


def test_what_is_not_there_is_said_in_one_line(cycle: Cycle) -> None:
    for command in ("show", "replay", "discard"):
        assert line("dead-letters", command, "7") == "Error (not_found): There is no dead letter 7."


def test_a_letter_is_replayed_as_a_new_instruction(cycle: Cycle) -> None:
    number = letter(cycle, poisoned(cycle))

    new = run("dead-letters", "replay", number).output.strip()
    again = run("dead-letters", "replay", number).output.strip()

    assert again == new
    assert cycle.finish(UUID(new))
    assert cycle.envelope(UUID(new))["status"] == "success"
    shown = json.loads(run("dead-letters", "show", number, "--json").output)
    assert (shown["became"], shown["replayed_as"]) == ("replayed", new)


def test_a_replayed_question_is_answered(scene: Scene) -> None:
    old = poisoned(scene.cycle, "LLM_RESPONSE_GENERATE", **scene.turn, user_input="Hello")

    new = run("dead-letters", "replay", letter(scene.cycle, old)).output.strip()

    assert scene.cycle.finish(UUID(new))
    assert scene.said() == ["Hello", "You said: Hello"]


def test_what_can_not_be_replayed_says_why(cycle: Cycle) -> None:
    assert "nothing to replay" in line("dead-letters", "replay", letter(cycle, None))
    gone = letter(cycle, new_instruction_id())
    assert "kept no longer" in line("dead-letters", "replay", gone)
    is_open = letter(cycle, cycle.decoded("USER_CREATE", username="open"))
    assert "still open" in line("dead-letters", "replay", is_open)
    fine = cycle.decoded("USER_LIST")
    cycle.execute(fine)
    cycle.store(fine)
    assert "succeeded" in line("dead-letters", "replay", letter(cycle, fine))
    erased = poisoned(cycle, username="erased")
    cycle.sql("UPDATE instructions SET data = '{}' WHERE id = :id", id=erased)
    assert "erased" in line("dead-letters", "replay", letter(cycle, erased))


def test_a_replay_says_that_secrets_are_not_kept(cycle: Cycle) -> None:
    data = {"name": "p", "api_endpoint": "http://127.0.0.1:1/v1"}
    number = letter(cycle, poisoned(cycle, "LLM_PROVIDER_ADD", **data))

    assert "API key" in run("dead-letters", "replay", number).stderr


def test_letters_are_discarded(cycle: Cycle) -> None:
    numbers = [letter(cycle, None), letter(cycle, None)]

    assert run("dead-letters", "discard", *numbers).output == f"Discarded: {', '.join(numbers)}.\n"
    assert cycle.count("dead_letters", "became = 'discarded'") == 2


def test_a_person_purges_with_a_count(cycle: Cycle) -> None:
    cycle.do("USER_LIST")
    cycle.sql("UPDATE instructions SET final_at = now() - interval '8 days'")

    assert run("purge").output.splitlines()[-1] == "1 rows deleted."
    assert cycle.count("instructions") == 0
