"""LLM_RESPONSE_GENERATE when all goes well: what is sent, what is kept, what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fixtures.configuration import Configure
from tests.fixtures.scenes import Scene
from tests.fixtures.threads import holds
from tests.servers import scripts


def test_an_answer_has_everything_that_the_contract_promises(scene: Scene) -> None:
    answer = scene.ask("Hello there")

    assert answer.pop("created_at")
    assert answer == {
        "message_id": 2,
        "parent_message_id": 1,
        "chat_id": scene.chat_id,
        "user_id": scene.user_id,
        "llm_id": scene.llm_id,
        "llm_name": "echo",
        "role": "assistant",
        "content": "You said: Hello there",
        "status": "complete",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6, "cost": None},
    }


def test_tool_calls_and_reasoning_come_along(scene: Scene) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    scene.provider.script(
        scripts.answer(None, finish="tool_calls", tool_calls=calls, reasoning_content="hm")
    )

    answer = scene.ask("Hello")

    assert (answer["content"], answer["tool_calls"], answer["reasoning"]) == ("", calls, "hm")
    assert answer["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    "named",
    [
        {"llm_id": 1},
        {"llm_id": 1, "provider_id": 1},
        {"llm_id": 1, "provider_name": "scripted", "llm_name": "echo"},
        {"provider_name": "scripted", "llm_name": "echo"},
        {"provider_id": 1, "llm_name": "echo"},
    ],
)
def test_an_llm_is_named_by_id_or_by_name(scene: Scene, named: dict[str, Any]) -> None:
    data = {"user_id": scene.user_id, "chat_id": scene.chat_id, "user_input": "Hello"}

    answer = scene.cycle.do("LLM_RESPONSE_GENERATE", **data, **named)["llm_response"]

    assert answer["llm_id"] == scene.llm_id


@pytest.mark.parametrize(
    ("named", "field"),
    [
        ({"llm_id": 1, "provider_id": 2}, "provider_id"),
        ({"llm_id": 1, "provider_name": "other"}, "provider_id"),
        ({"llm_id": 1, "llm_name": "not echo"}, "llm_name"),
        ({"provider_id": 1, "provider_name": "other", "llm_name": "echo"}, "provider_name"),
    ],
)
def test_names_and_ids_must_agree(scene: Scene, named: dict[str, Any], field: str) -> None:
    scene.cycle.do("LLM_PROVIDER_ADD", name="other", api_endpoint="http://localhost/v1")
    data = {"user_id": scene.user_id, "chat_id": scene.chat_id, "user_input": "Hello"}

    failed = scene.cycle.fail("LLM_RESPONSE_GENERATE", **data, **named)

    assert (failed.code, failed.stage, failed.fields) == ("invalid_data", "decode", [field])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"llm_id": 77}, "llm_id"),
        ({"llm_id": None, "provider_name": "none", "llm_name": "echo"}, "provider_name"),
        ({"llm_id": None, "provider_name": "scripted", "llm_name": "none"}, "llm_name"),
        ({"chat_id": 77}, "chat_id"),
        ({"user_id": 77}, "user_id"),
        ({"parent_message_id": 77}, "parent_message_id"),
    ],
)
def test_what_is_not_there_is_not_found(scene: Scene, change: dict[str, Any], field: str) -> None:
    failed = scene.ask_in_vain("Hello", **change)

    assert (failed.code, failed.details["field"]) == ("not_found", field)
    assert scene.provider.calls == []
    assert scene.cycle.count("messages") == 0


def test_only_a_member_may_speak(scene: Scene) -> None:
    bob = scene.cycle.do("USER_CREATE", username="bob")["user"]["user_id"]

    failed = scene.ask_in_vain("Hello", user_id=bob)

    assert (failed.code, failed.stage) == ("not_a_member", "execute")
    assert failed.details == {"user_id": bob, "chat_id": scene.chat_id}
    assert scene.provider.calls == []
    assert scene.cycle.count("attempts") == 0


# --- parameters and windows ---------------------------------------------------------------------


def test_the_nearest_parameters_win(scene: Scene) -> None:
    far = {"temperature": 0.1, "top_p": 0.1, "seed": 1}
    scene.cycle.do(
        "LLM_PROVIDER_UPDATE", provider_id=scene.provider_id, settings={"parameters": far}
    )
    nearer = {"temperature": 0.2, "top_p": 0.2}
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"parameters": nearer})

    scene.ask("Hello", parameters={"temperature": 0.3, "stop": ["\n"]})

    body = scene.provider.calls[0].body
    assert {key: body[key] for key in ("temperature", "top_p", "seed", "stop")} == {
        "temperature": 0.3,
        "top_p": 0.2,
        "seed": 1,
        "stop": ["\n"],
    }


def test_history_is_cut_to_the_context_window(scene: Scene) -> None:
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"context_window": 120})
    scene.provider.otherwise = scripts.answer("y" * 60, usage=False)
    for number in range(4):
        scene.ask(f"question {number} " + "x" * 60)

    sent = scene.provider.calls[-1].body["messages"]

    assert len(sent) < 7
    assert sent[-1]["content"].startswith("question 3")
    assert sent[0]["role"] == "user"
    assert len(scene.messages()) == 8


def test_what_a_provider_counted_corrects_the_next_estimate(scene: Scene) -> None:
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"context_window": 120})
    question = "x" * 150
    scene.ask(question)
    assert len(scene.provider.calls[-1].body["messages"]) == 1
    ((estimated, counted),) = scene.cycle.sql(
        "SELECT estimated_tokens, prompt_tokens FROM attempts"
    )
    assert estimated == 8 + 50 and counted == 1

    scene.ask("y" * 150)

    sent = [m["content"][0] for m in scene.provider.calls[-1].body["messages"]]
    assert sent == ["x", "Y", "y"], "the provider counts so few tokens that more fits"


def test_a_question_beyond_the_context_window_is_refused_before_it_is_sent(scene: Scene) -> None:
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"context_window": 64})

    failed = scene.ask_in_vain("x" * 1_000)

    assert (failed.code, failed.fields) == ("invalid_data", ["user_input"])
    assert scene.provider.calls == []


def test_an_input_of_a_hundred_thousand_characters_is_taken(scene: Scene) -> None:
    scene.provider.script(scripts.answer("long"))

    scene.ask("€" * 100_000)

    assert len(scene.provider.calls[0].question) == 100_000


def test_what_postgresql_cannot_keep_is_replaced_in_the_answer(scene: Scene) -> None:
    scene.provider.script(scripts.answer("a\x00b\ud800c"))

    assert scene.ask("Hello")["content"] == "a\ufffdb\ufffdc"


# --- the ledger ---------------------------------------------------------------------------------


def test_an_answered_call_is_in_the_ledger(scene: Scene) -> None:
    instruction_id = scene.submit("Hello")
    scene.cycle.finish(instruction_id)

    shown = scene.cycle.do("INSTRUCTION_GET", instruction_id=str(instruction_id))["instruction"]

    (attempt,) = shown["attempts"]
    times = [attempt.pop(name) for name in ("started_at", "first_delta_at", "finished_at")]
    assert times == sorted(times)
    assert attempt == {
        "number": 1,
        "provider_name": "scripted",
        "llm_name": "echo",
        "llm_id": scene.llm_id,
        "status": "answered",
        "prompt_tokens": 1,
        "completion_tokens": 3,
        "total_tokens": 4,
        "usage_estimated": False,
        "cost": None,
        "error_code": None,
        "http_status": None,
    }


def test_a_question_that_was_answered_with_calls_of_tools_goes_before_their_results(
    scene: Scene,
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    scene.provider.script(scripts.answer(None, finish="tool_calls", tool_calls=[call]))
    scene.ask("What is f of 1?")

    scene.ask("f says 2")

    sent = [message["content"] for message in scene.provider.calls[-1].body["messages"]]
    assert sent == ["What is f of 1?", '[called f: {"x": 1}]', "f says 2"]


def test_a_price_makes_a_cost(scene: Scene) -> None:
    price = {"prompt": 1_000_000, "completion": 0.5}
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"price": price})

    answer = scene.ask("two words")

    assert answer["usage"]["cost"] == 2 + 4 * 0.5 / 1_000_000


def test_what_the_provider_had_in_its_cache_has_a_price_of_its_own(scene: Scene) -> None:
    price = {"prompt": 1_000_000, "cached_prompt": 100_000, "completion": 2_000_000}
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"price": price})
    counted = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    counted_apart = counted | {"prompt_tokens_details": {"cached_tokens": 6}}
    document = {"choices": [{"index": 0, "message": {"content": "so"}, "finish_reason": "stop"}]}
    scene.provider.script(scripts.document(document | {"usage": counted_apart}))

    answer = scene.ask("Hello")

    assert answer["usage"]["cost"] == 4 + 6 * 0.1 + 3 * 2
    (line,) = scene.cycle.do("USAGE_LIST")["usage"]
    assert (line["prompt_tokens"], line["cost"]) == (10, 10.6)


def test_without_usage_there_is_no_cost(scene: Scene) -> None:
    scene.cycle.do("LLM_UPDATE", llm_id=scene.llm_id, settings={"price": {"prompt": 1}})
    scene.provider.script(scripts.answer("free", usage=False))

    usage = scene.ask("Hello")["usage"]

    assert set(usage.values()) == {None}


def test_no_connection_is_held_while_the_provider_is_talking(
    scene: Scene, configure: Configure
) -> None:
    pool = scene.cycle.database.engine.pool
    free: list[bool] = []

    def look(exchange: scripts.Exchange) -> None:
        # The stream's watcher takes one for a moment, now and then.
        free.append(holds(lambda: pool.checkedout() == 0, 5))  # type: ignore[attr-defined]
        scripts.echo(exchange)

    scene.provider.script(look)
    scene.ask("Hello")

    assert free == [True]
