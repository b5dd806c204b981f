"""Turn policies: what a turn does that finds its chat busy, and what becomes of those before it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.units.context import tokens
from tests.fixtures.configuration import Configure
from tests.fixtures.cycles import Cycle, failure
from tests.fixtures.scenes import Scene, watchers_asleep
from tests.fixtures.threads import at_once, eventually
from tests.fixtures.workers import StartWorker
from tests.servers import scripts
from tests.servers.watching import Watch

PAIRS = 50
ENDING = ("interrupt", "rollback")
each_ending = pytest.mark.parametrize("policy", ENDING)


@contextmanager
def speaking(scene: Scene, instruction_id: UUID) -> Iterator[None]:
    """The turn is being executed, and has begun to speak."""
    thread = threading.Thread(target=scene.cycle.execute, args=[instruction_id])
    thread.start()
    try:
        eventually(lambda: scene.cycle.count("attempts", "first_delta_at IS NOT NULL") == 1)
        yield
    finally:
        thread.join()


def shown(scene: Scene, **more: Any) -> list[tuple[str, str, str | None]]:
    """The chat's messages by role, status and finish_reason."""
    return [(m["role"], m["status"], m.get("finish_reason")) for m in scene.messages(**more)]


def code(cycle: Cycle, instruction_id: UUID) -> str:
    return failure(cycle.envelope(instruction_id)).code


# --- reject -------------------------------------------------------------------------------------


def test_reject_is_refused_as_soon_as_it_is_decoded(scene: Scene) -> None:
    scene.decoded("one")

    failed = scene.ask_in_vain("two", turn_policy="reject")

    assert (failed.code, failed.stage) == ("chat_busy", "decode")
    assert failed.details == {"chat_id": scene.chat_id}


def test_reject_goes_on_in_a_chat_that_is_idle(scene: Scene) -> None:
    scene.ask("one", turn_policy="reject")

    assert scene.ask("two", turn_policy="reject")["content"] == "You said: two"


def test_reject_looks_again_before_it_starts(scene: Scene) -> None:
    """A turn that was submitted earlier may become visible later."""
    second = scene.decoded("two", turn_policy="reject")
    first = scene.decoded("one")
    scene.cycle.sql("UPDATE instructions SET seq = 0 WHERE id = :id", id=first)

    scene.cycle.finish(second, "execute")

    assert code(scene.cycle, second) == "chat_busy"


# --- interrupt and rollback ---------------------------------------------------------------------


def test_interrupt_keeps_the_partial_answer_and_goes_next(scene: Scene) -> None:
    scene.provider.script(scripts.slow(10_000, 50))
    first = scene.decoded("one")

    with speaking(scene, first), watchers_asleep():
        second = scene.decoded("two", turn_policy="interrupt")
        scene.cycle.execute(second)
    scene.cycle.store(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    envelope = scene.cycle.envelope(first)
    assert code(scene.cycle, first) == "cancelled"
    assert envelope["error"]["details"] == {"reason": "interrupted"}
    partial = envelope["data"]["llm_response"]
    assert partial["finish_reason"] == "interrupted"
    assert partial["usage"]["estimated"]
    assert partial["usage"]["completion_tokens"] == tokens(partial["content"])
    assert shown(scene) == [
        ("user", "complete", None),
        ("assistant", "cancelled", "interrupted"),
        ("user", "complete", None),
        ("assistant", "complete", "stop"),
    ]
    sent = [m["content"] for m in scene.provider.calls[-1].body["messages"]]
    assert sent == ["one", partial["content"], "two"]


def test_rollback_hides_the_turn_and_goes_on_from_before_it(scene: Scene) -> None:
    scene.ask("zero")
    scene.provider.script(scripts.slow(10_000, 50))
    first = scene.decoded("one")

    with speaking_again(scene, first), watchers_asleep():
        second = scene.decoded("two", turn_policy="rollback")
        scene.cycle.execute(second)
    scene.cycle.store(first)

    assert scene.cycle.deliver("llm.generate") == [second]
    assert failure(scene.cycle.envelope(first)).details == {"reason": "rolled_back"}
    said = ["zero", "You said: zero", "two", "You said: two"]
    assert scene.said() == scene.said(branch="all") == said
    assert [m["content"] for m in scene.provider.calls[-1].body["messages"]] == said[:3]
    exported = scene.cycle.do("USER_EXPORT", user_id=scene.user_id)["messages"]
    assert next(m["content"] for m in exported if m.get("hidden")) == "one"
    assert len(exported) == 6


def test_what_was_rolled_back_is_not_there_any_more(scene: Scene) -> None:
    answer = scene.ask("one")
    scene.cycle.sql("UPDATE messages SET hidden = true")
    question = answer["parent_message_id"]
    cycle, chat_id = scene.cycle, scene.chat_id

    for failed, field in (
        (scene.ask_in_vain("two", parent_message_id=answer["message_id"]), "parent_message_id"),
        (cycle.fail("LLM_RESPONSE_REGENERATE", message_id=question), "message_id"),
        (
            cycle.fail("CHAT_UPDATE", chat_id=chat_id, active_message_id=question),
            "active_message_id",
        ),
        (cycle.fail("CHAT_LOAD", chat_id=chat_id, before=question), "before"),
    ):
        assert (failed.code, failed.details["field"]) == ("not_found", field)
    assert cycle.do("CHAT_SEARCH", user_id=scene.user_id, query="one")["messages"] == []
    exported = cycle.do("CHAT_EXPORT", chat_id=chat_id)["chat"]["messages"]
    assert [m["hidden"] for m in exported] == [True, True]


@contextmanager
def speaking_again(scene: Scene, instruction_id: UUID) -> Iterator[None]:
    """The same as ``speaking``, where others have spoken before."""
    scene.cycle.sql("UPDATE attempts SET first_delta_at = NULL")
    with speaking(scene, instruction_id):
        yield


@each_ending
def test_queued_turns_end_at_once_and_without_a_trace(scene: Scene, policy: str) -> None:
    queued = [scene.decoded("one"), scene.submit("two"), scene.decoded("three")]
    scene.cycle.execute(queued[2])

    last = scene.decoded("four", turn_policy=policy)

    assert [code(scene.cycle, instruction_id) for instruction_id in queued] == ["cancelled"] * 3
    assert scene.cycle.execute(last)
    assert scene.said() == ["four", "You said: four"]
    assert len(scene.provider.calls) == 1


@each_ending
def test_later_turns_are_left_in_their_order(scene: Scene, policy: str) -> None:
    second = scene.submit("two", turn_policy=policy)
    third = scene.decoded("three")

    scene.cycle.decode(second)

    assert not scene.cycle.execute(third)
    scene.cycle.execute(second)
    assert scene.cycle.deliver("llm.generate") == [third]
    assert scene.said() == ["two", "You said: two", "three", "You said: three"]


@each_ending
def test_who_may_not_speak_here_ends_nobodys_turn(scene: Scene, policy: str) -> None:
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]
    first = scene.decoded("one")

    failed = scene.ask_in_vain("two", user_id=bob, turn_policy=policy)

    assert failed.code == "not_a_member"
    assert scene.cycle.row(first).cancel_requested is None
    assert scene.cycle.execute(first)


def test_a_regeneration_is_rolled_back_to_the_answer_before(scene: Scene) -> None:
    answer = scene.ask("one")
    scene.provider.script(scripts.slow(10_000, 50))
    again = scene.cycle.decoded("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])

    with speaking_again(scene, again):
        last = scene.decoded("two", turn_policy="rollback")
        scene.cycle.execute(last)

    scene.cycle.deliver("llm.generate")
    assert scene.said() == ["one", "You said: one", "two", "You said: two"]


# --- whose policy counts ------------------------------------------------------------------------


def test_the_instructions_policy_goes_before_the_chats_and_that_before_the_setting(
    scene: Scene, configure: Configure
) -> None:
    scene.decoded("one")

    configure(turn_policy="reject")
    assert scene.ask_in_vain("two").code == "chat_busy"
    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, turn_policy="enqueue")
    assert scene.cycle.row(scene.decoded("three")).state == "decoded"
    assert scene.ask_in_vain("four", turn_policy="reject").code == "chat_busy"


def test_a_regeneration_has_the_chats_policy(scene: Scene) -> None:
    answer = scene.ask("one")
    scene.cycle.do("CHAT_UPDATE", chat_id=scene.chat_id, turn_policy="reject")
    scene.decoded("two", turn_policy="enqueue")

    failed = scene.cycle.fail("LLM_RESPONSE_REGENERATE", message_id=answer["message_id"])

    assert (failed.code, failed.stage) == ("chat_busy", "decode")


# --- races --------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["enqueue", "reject", "interrupt", "rollback"])
def test_racing_pairs_are_never_two_at_once(scene: Scene, policy: str) -> None:
    # An interrupted call has ended for its worker before the provider's side of it knows.
    each_ends_itself = policy not in ENDING
    watch = Watch(0.015)
    scene.provider.otherwise = watch if each_ends_itself else scripts.slow(3, 200)

    def run(word: str) -> UUID:
        instruction_id = scene.submit(word, turn_policy=policy)
        scene.cycle.finish(instruction_id)
        return instruction_id

    for number in range(PAIRS):
        pair = at_once([lambda w=w: run(w) for w in (f"a{number}", f"b{number}")])
        eventually(lambda: all(_over(scene, i) for i in pair))  # noqa: B023
        codes = {scene.cycle.envelope(i).get("error", {}).get("code") for i in pair}
        assert codes <= {None, "chat_busy" if policy == "reject" else "cancelled"}

    assert watch.most == (1 if each_ends_itself else 0)
    spoken = scene.cycle.sql("SELECT started_at, finished_at FROM attempts ORDER BY id")
    assert all(a.finished_at <= b.started_at for a, b in pairwise(spoken))
    assert scene.cycle.count("instructions", "turn IN ('queued', 'active')") == 0
    assert scene.cycle.count("messages", "status = 'generating'") == 0
    assert len(scene.provider.calls) == scene.cycle.count("attempts")


def _over(scene: Scene, instruction_id: UUID) -> bool:
    scene.cycle.deliver("llm.generate", "database")
    return scene.cycle.row(instruction_id).state == "final"


def test_two_hundred_turns_sent_at_once_are_answered_in_order_one_at_a_time(
    scene: Scene, worker: StartWorker
) -> None:
    worker()
    client = LLMChatLinkerClient()
    words = [f"word {number}" for number in range(200)]

    results = [
        client.submit("LLM_RESPONSE_GENERATE", **scene.turn, user_input=word) for word in words
    ]
    answers = [result.get(timeout=300)["data"]["llm_response"]["content"] for result in results]

    assert answers == [f"You said: {word}" for word in words]
    assert [call.question for call in scene.provider.calls] == words
    spoken = scene.cycle.sql("SELECT started_at, finished_at FROM attempts ORDER BY id")
    assert all(a.finished_at <= b.started_at for a, b in pairwise(spoken))
