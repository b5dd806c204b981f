"""The checker of the fault suite finds what it is there for: each test breaks one promise by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from faults.checker import Verdict, busy, too_many
from faults.observer import Observer
from faults.plan import Size
from faults.results import Result
from faults.world import World

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
    assert "2 chats" in breaches(look, "o0")[0]
    assert look().duplicated


def test_work_that_was_not_done_is_found(world: World, look: Look) -> None:
    sql(world, "DELETE FROM chats WHERE title = %s", "o1")
    assert "no chat" in breaches(look, "o1")[0]
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
    assert busy(world.place) == "1 messages generating"
    world.place.sql("DELETE FROM messages WHERE chat_id = %s", chat)


def test_connections_beyond_what_is_configured_are_found() -> None:
    assert too_many({"postgresql": 30, "rabbitmq": 30}, 3) == []
    assert "31 connections to postgresql" in too_many({"postgresql": 31, "rabbitmq": 30}, 3)[0]


def test_workers_that_grow_are_found() -> None:
    result = Result("soak", 1, 20, memory=[90.0, 95.0] + [100.0] * 16 + [130.0] * 2)
    result.judge()
    assert result.breaches == ["workers grew from 100.0 MB of memory to 130.0"]


def test_workers_that_are_only_warm_are_not_taken_for_growing() -> None:
    result = Result("soak", 1, 20, memory=[60.0, 70.0] + [100.0] * 18, threads=[30] * 20)
    result.judge()
    assert result.breaches == []
