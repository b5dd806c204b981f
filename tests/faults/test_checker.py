"""The checker of the fault suite finds what it is there for: each test breaks one promise by hand."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from benchmarks.sides import CONCURRENCY, ROOT
from faults import commit, sizes
from faults.checker import Check, Verdict
from faults.journal import Memory
from faults.observer import Observer
from faults.plan import Size
from faults.quiet import busy, queued
from faults.results import Result
from faults.sizes import Sizes
from faults.world import World
from tests.fixtures.threads import eventually

NAME = "kept"
SIZE = Size(chats=6, turns=2, ordinary=8, spread=0.5)

Look = Callable[[], Verdict]


@pytest.fixture(scope="module")
def look(world: World) -> Look:
    """Compare the memories of a round once more; all promises were kept in it."""
    done = world.round(NAME, random.Random(1), SIZE, lambda *_: Counter())
    assert done.verdict.breaches == []
    return world.look


def breaches(look: Look, tag: str) -> list[str]:
    """What is broken of a tag."""
    return [breach for breach in look().breaches if f"{NAME}-{tag}:" in breach]


def sql(world: World, statement: str, tag: str) -> None:
    """A statement that breaks something; ``%s`` is the tag."""
    world.place.sql(statement, f"{NAME}-{tag}")


ID = "(SELECT id FROM instructions WHERE split_part(data ->> 'user_input', ' ', 1) = %s)"


def test_work_that_was_done_twice_is_found(world: World, look: Look) -> None:
    sql(world, "INSERT INTO chats (title) VALUES (%s)", "o0")
    assert "2 are there" in breaches(look, "o0")[0]
    assert look().duplicated


def test_work_that_was_not_done_is_found(world: World, look: Look) -> None:
    sql(world, "DELETE FROM chats WHERE title = %s", "o1")
    assert "nothing is there" in breaches(look, "o1")[0]
    assert look().lost


def test_an_instruction_that_is_gone_is_found(world: World, look: Look) -> None:
    sql(world, "DELETE FROM instructions WHERE data ->> 'title' = %s", "o2")
    assert "is gone" in breaches(look, "o2")[0]


def test_an_envelope_that_is_not_the_client_s_is_found(world: World, look: Look) -> None:
    statement = 'UPDATE instructions SET outcome = outcome || \'{"message": "no"}\''
    sql(world, statement + " WHERE data ->> 'title' = %s", "o3")
    assert "another envelope" in breaches(look, "o3")[0]


def test_a_call_that_the_ledger_does_not_know_is_found(world: World, look: Look) -> None:
    world.provider.calls_of[f"{NAME}-c0-t0"] += 1
    assert "2 calls" in breaches(look, "c0-t0")[0]
    assert look().unledgered == 1


def test_a_turn_that_is_not_in_its_chat_is_found(world: World, look: Look) -> None:
    statement = f"""
        UPDATE chats SET active_message_id = active.id - 2
          FROM messages active
         WHERE active.id = chats.active_message_id AND active.instruction_id = {ID}
    """
    sql(world, statement, "c0-t1")
    assert "not in its chat" in breaches(look, "c0-t1")[0]


def test_a_missing_event_is_found(world: World, look: Look) -> None:
    sql(world, f"DELETE FROM events WHERE first = 1 AND instruction_id = {ID}", "c1-t0")
    assert "gap" in breaches(look, "c1-t0")[0]


def test_a_complete_answer_that_is_cut_is_found(world: World, look: Look) -> None:
    statement = "UPDATE messages SET content = left(content, 3) WHERE role = 'assistant'"
    sql(world, f"{statement} AND instruction_id = {ID}", "c1-t1")
    assert any("characters" in breach for breach in breaches(look, "c1-t1"))


def memory(world: World, tag: str) -> Memory:
    """What the client remembers of a tag."""
    return world.journal.of(f"{NAME}-{tag}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"refusals": ["internal"]}, "refused with"),
        ({"id": None, "refusals": ["unavailable"]}, "ran all the same"),
        ({"id": None}, "neither accepted nor refused"),
        ({"envelopes": []}, "its client has"),
        ({"envelopes": [{"instruction_id": "another"}]}, "the envelope of another id"),
    ],
)
def test_what_a_client_must_not_remember_is_found(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(memory(world, "o4"), name, value)
    assert any(words in breach for breach in breaches(look, "o4"))


@pytest.mark.parametrize("code", ["internal", "cancelled", "provider_error", "provider_timeout"])
def test_an_end_that_nothing_explains_is_found(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    kept = memory(world, "c2-t0")
    ended = [kept.envelopes[0] | {"error": {"code": code}}]
    monkeypatch.setattr(kept, "envelopes", ended)
    # Even where it may be, it may not be of this turn, which nobody cancels and the provider answers.
    allowed = () if code == "internal" else (code,)
    memories = (world.place, world.provider, world.plan, world.journal)
    found = Check(*memories, 0, 10**9, allowed, {}).run().breaches
    assert any(f"{NAME}-c2-t0" in b and f"ended with {code}" in b for b in found)


def test_what_was_accepted_and_is_gone_is_found_though_its_submission_raised_an_error(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory(world, "o5"), "uncertain", True)
    sql(world, "DELETE FROM instructions WHERE data ->> 'title' = %s", "o5")
    assert "is gone" in breaches(look, "o5")[0]


def test_a_row_that_nobody_submitted_is_found(world: World, look: Look) -> None:
    statement = "UPDATE instructions SET id = gen_random_uuid(), data = '{}'"
    sql(world, f"{statement} WHERE data ->> 'title' = %s", "o6")
    assert any("0 submissions have it" in breach for breach in look().breaches)


def test_two_submissions_that_got_one_id_are_found(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory(world, "o4"), "id", memory(world, "o7").id)
    assert any("2 submissions got it" in breach for breach in look().breaches)


def test_what_a_client_ran_into_is_found(
    world: World, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.journal, "defects", ["a client: ValueError"])
    assert "a client: ValueError" in look().breaches


def test_a_call_of_a_round_that_is_over_is_found(world: World, look: Look) -> None:
    world.provider.calls_of["an-old-tag"] += 1
    assert "an-old-tag: called in a round that is not its own" in look().breaches
    del world.provider.calls_of["an-old-tag"]


def test_a_line_without_a_call_is_found(world: World, look: Look) -> None:
    world.provider.calls_of[f"{NAME}-c2-t0"] -= 1
    assert "only 0 calls" in breaches(look, "c2-t0")[0]
    world.provider.calls_of[f"{NAME}-c2-t0"] += 1


def test_a_call_in_doubt_where_nobody_died_is_found(world: World, look: Look) -> None:
    sql(world, f"UPDATE attempts SET status = 'in_doubt' WHERE instruction_id = {ID}", "c2-t0")
    assert any("no worker died" in breach for breach in breaches(look, "c2-t0"))


def test_turns_out_of_order_are_found(world: World, look: Look) -> None:
    world.plan.tracks[2].steps.reverse()
    assert any("out of order" in breach for breach in look().breaches)
    world.plan.tracks[2].steps.reverse()


_MESSAGE = """
    INSERT INTO messages (chat_id, parent_id, role, content, instruction_id)
    SELECT chat_id, parent_id, role, content, {id} FROM messages
     WHERE role = 'assistant' AND instruction_id = {of}
"""


def test_a_second_answer_is_found(world: World, look: Look) -> None:
    sql(world, _MESSAGE.format(id="instruction_id", of=ID), "c2-t1")
    assert any("'assistant': 2" in breach for breach in breaches(look, "c2-t1"))


def test_messages_of_nobody_are_found(world: World, look: Look) -> None:
    sql(world, _MESSAGE.format(id="gen_random_uuid()", of=ID), "c3-t0")
    assert any("which nobody submitted" in breach for breach in look().breaches)


def test_a_branch_that_leads_nowhere_is_found(world: World, look: Look) -> None:
    chat = f"(SELECT chat_id FROM messages WHERE role = 'user' AND instruction_id = {ID})"
    sql(world, f"UPDATE chats SET active_message_id = 2147483647 WHERE id = {chat}", "c3-t1")
    assert any("leads to no message" in breach for breach in look().breaches)


def test_an_answer_that_was_never_said_is_found(world: World, look: Look) -> None:
    statement = "UPDATE messages SET content = 'else', status = 'cancelled'"
    sql(world, f"{statement} WHERE role = 'assistant' AND instruction_id = {ID}", "c4-t0")
    found = " ".join(breaches(look, "c4-t0"))
    assert "not what the provider has said" in found
    assert "says something else than the message" in found
    assert "its deltas are not the message" in found


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (None, "has seen nothing"),
        ({"whole": False}, "something else than is stored"),
        ({"text": "else"}, "something else than is stored"),
        ({"last": None}, "has no end"),
    ],
)
def test_a_stream_that_was_not_followed_to_its_end_is_found(
    world: World,
    look: Look,
    monkeypatch: pytest.MonkeyPatch,
    stream: dict[str, Any] | None,
    words: str,
) -> None:
    tag = next(
        step.tag
        for track in world.plan.tracks[4:6]
        for step in track.steps
        if step.stream and track.chat_id is not None
    ).removeprefix(f"{NAME}-")
    kept = memory(world, tag)
    assert kept.stream is not None
    monkeypatch.setattr(kept, "stream", None if stream is None else kept.stream | stream)
    assert any(words in breach for breach in breaches(look, tag))


def test_what_is_not_at_its_end_in_rabbitmq_is_found(world: World) -> None:
    rabbitmq, place = world.servers.rabbitmq, world.place
    eventually(lambda: queued(place, rabbitmq, 2) == "")
    assert "2 of 3 consumers" in queued(place, rabbitmq, 3)
    assert "queues llmchatlinker.reply." in queued(place, rabbitmq, 2, clients=0)


@dataclass
class Uncommitted:
    """As ``Place``, in one transaction that comes to nothing: sweepers neither see it nor mend it."""

    cursor: Any

    def sql(self, statement: str, *values: object) -> list[Any]:
        """The rows of the statement, if it has any."""
        self.cursor.execute(statement, values or None)
        return list(self.cursor.fetchall()) if self.cursor.description else []


_LINE = "UPDATE attempts SET status = {} WHERE id = (SELECT max(id) FROM attempts)"


@pytest.mark.parametrize(
    ("words", "breaks"),
    [
        (
            "1 open instructions",
            "INSERT INTO instructions (id, type, data, deadline_at) VALUES"
            " (gen_random_uuid(), 'USER_LIST', '{\"open\": 1}', now() + interval '1 hour')",
        ),
        (
            "1 turns not done",
            "UPDATE instructions SET turn = 'active' WHERE seq = (SELECT max(seq) FROM instructions"
            " WHERE turn IS NOT NULL)",
        ),
        (
            "1 calls started in the ledger",
            _LINE.format("'started', lease_until = now() + interval '1 hour'"),
        ),
        (
            "1 waiters of what has ended",
            "INSERT INTO waiters (instruction_id, queue, created_at)"
            " SELECT id, 'nobody', final_at - interval '1 minute' FROM instructions"
            " WHERE final_at IS NOT NULL LIMIT 1",
        ),
    ],
)
def test_what_is_not_at_its_end_in_postgresql_is_found(
    world: World, words: str, breaks: str
) -> None:
    eventually(lambda: busy(world.place) == "")
    with closing(psycopg2.connect(world.place.plain_url)) as connection:
        place: Any = Uncommitted(connection.cursor())
        place.sql(breaks)
        assert words in busy(place).split(", ")


def test_a_transaction_that_is_left_open_is_found(world: World) -> None:
    eventually(lambda: busy(world.place) == "")
    with closing(psycopg2.connect(world.place.plain_url)) as connection:
        connection.cursor().execute("SELECT 1")
        # Its workers' own sweeping may be in one as well, just now.
        assert "connections in a transaction" in busy(world.place)


def test_an_envelope_that_changes_is_found(world: World, look: Look) -> None:
    observer = Observer(world.place, 0)
    observer.look()
    statement = 'UPDATE instructions SET outcome = outcome || \'{"message": "else"}\''
    sql(world, f"{statement} WHERE id = {ID}", "c0-t0")
    observer.look()
    assert len(observer.changed) == 1


def test_a_message_that_nobody_generates_is_found(world: World, look: Look) -> None:
    (chat,) = world.scene(1).chat_ids
    statement = "INSERT INTO messages (chat_id, role, content, status) VALUES (%s, %s, '', %s)"
    world.place.sql(statement, chat, "assistant", "generating")
    # Nothing else is under way; a look of the sweeper's may be, for a moment.
    eventually(lambda: busy(world.place) == "1 messages generating")
    world.place.sql("DELETE FROM messages WHERE chat_id = %s", chat)


@pytest.mark.parametrize("kind", [sizes.WORKER, sizes.CLIENT])
@pytest.mark.parametrize("name", sizes.COUNTS)
def test_one_more_than_a_process_may_have_is_found(world: World, kind: str, name: str) -> None:
    limits = sizes.limits(world.side.settings, CONCURRENCY)[kind]
    at_most = Sizes(limits, 90.0)
    assert sizes.beyond(at_most, limits, kind) == []
    more = Sizes(limits | {name: limits[name] + 1}, 90.0)
    (found,) = sizes.beyond(more, limits, kind)
    assert found == f"{kind}: {limits[name] + 1} {name}, of which it may have {limits[name]}"


def test_every_thread_of_the_product_is_granted_or_ends_by_itself() -> None:
    named = set()
    for path in (ROOT / "llmchatlinker").rglob("*.py"):
        if not {"cli", "embedded"} & set(path.parts):
            named |= set(re.findall(r'Thread\(.*name="([^"]+)"', path.read_text()))
    # A look-up ends with its call, stop with the worker; metrics are written where that is set.
    others = {"look-up", "stop", "metrics"}
    assert named | {"main"} == {*sizes.WORKER_THREADS, *sizes.CLIENT_THREADS, *others}


def test_connections_of_nobody_are_found() -> None:
    process = Sizes({"connections to postgresql": 4}, 90.0)
    assert sizes.of_nobody({"connections to postgresql": 8}, [process] * 2) == []
    (found,) = sizes.of_nobody({"connections to postgresql": 9}, [process] * 2)
    assert found == "9 connections to postgresql, of which living processes have 8"


def test_the_connections_of_a_process_are_counted(world: World) -> None:
    (client,) = world.gauge.now()["the client"]
    assert client.counts["connections to postgresql"] > 0
    assert client.counts["connections to rabbitmq"] > 0


def result(memory: list[float], **more: object) -> Result:
    """Of a soak with 20 rounds."""
    made = Result("soak", 1, 20, "abc", done=20, sizes={"MB of memory": memory})
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_processes_that_grow_are_found() -> None:
    grown = result([90.0, 95.0] + [100.0] * 16 + [130.0] * 2)
    grown.judge({})
    assert grown.broken == ["MB of memory grew from 100.0 to 130.0"]
    grown.sizes = {"MB of memory": [60.0, 70.0] + [100.0] * 18}
    grown.judge({})
    assert grown.broken == []


def test_what_was_broken_too_seldom_is_found() -> None:
    few = result([], faults={"kills": 99}, accepted=1000)
    few.judge({"kills": 100, "accepted": 1000})
    assert few.broken == ["99 of 100 times: kills"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"seed": 2}, "is of seed 1"),
        ({"commit": "def"}, "is of commit abc"),
    ],
)
def test_a_run_goes_on_with_the_same_seed_and_commit_only(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    path = tmp_path / "soak.json"
    result([], breaches=["an old one"]).keep(path)
    fresh = result([], done=0, rounds=30, **change)
    begun, said = Result.begun(path, fresh)
    assert why in said
    assert bool(said) == bool(why)
    assert (begun.done, begun.rounds, begun.broken) == (
        (0, 30, []) if why else (20, 30, ["an old one"])
    )


def test_results_of_code_that_nobody_knows_are_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "soak.json"
    unknown = result([], commit=commit.UNKNOWN)
    unknown.keep(path)
    begun, why = Result.begun(path, unknown)
    assert begun is unknown
    assert why
