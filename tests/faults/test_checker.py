"""The checker of the fault suite finds what it is there for: each test breaks one promise by hand."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.sides import CONCURRENCY, ROOT
from faults import commit, sizes
from faults.checker import Verdict
from faults.observer import Observer
from faults.plan import Size
from faults.quiet import busy
from faults.results import Result
from faults.sizes import Sizes
from faults.world import World
from tests.fixtures.threads import eventually

NAME = "kept"
SIZE = Size(chats=2, turns=2, ordinary=4, spread=0.5)

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
