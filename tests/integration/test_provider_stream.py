"""OpenAI's wire over real HTTP, in pieces: what is sent, and what is made of the pieces."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from llmchatlinker.errors import ProviderError, ProviderTimeout
from llmchatlinker.providers.base import ChatAnswer, Delta, Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.openai import OpenAI
from tests.fixtures.wires import REQUEST, streamed, streamed_refusal
from tests.servers import scripts
from tests.servers.provider import Exchange, ScriptedProvider
from tests.servers.shapes import event, openai_chunk

DONE = b"data: [DONE]\n\n"
SAID = [Delta("text", "Hel"), Delta("text", "lo")]
HELLO = openai_chunk({"content": "Hel"}) + openai_chunk({"content": "lo"})
STOP = openai_chunk({}, "stop")
OTHER = event({"choices": [{"index": 1, "delta": {"content": "no"}}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})

# --- what is sent -------------------------------------------------------------------------------


def test_an_answer_in_pieces_is_asked_for_with_its_usage(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    streamed(provider, endpoint, scripts.echo)

    (call,) = provider.calls
    assert call.body["stream"] is True
    assert call.body["stream_options"] == {"include_usage": True}
    assert call.headers["accept-encoding"] == "identity"


def test_a_server_that_refuses_stream_options_is_not_asked_for_usage(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    answer, _ = streamed(provider, replace(endpoint, include_usage=False), scripts.echo)

    assert "stream_options" not in provider.calls[0].body
    assert answer.usage == Usage()


def test_a_server_that_cannot_stream_is_asked_for_the_whole(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    answer, deltas = streamed(provider, replace(endpoint, stream=False), scripts.echo)

    assert provider.calls[0].body["stream"] is False
    assert deltas == [Delta("text", answer.content)]


def test_a_refusal_of_stream_options_is_not_mended_by_a_second_request(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    error, _ = streamed_refusal(provider, endpoint, scripts.error(400, "stream_options?"))

    assert error.details["http_status"] == 400
    assert len(provider.calls) == 1


def test_connections_are_used_again(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    for _ in range(3):
        streamed(provider, endpoint, scripts.echo)

    assert provider.connections == 1


# --- right answers ------------------------------------------------------------------------------


def test_an_answer_comes_word_by_word_with_reason_and_usage(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    answer, deltas = streamed(provider, endpoint, scripts.answer("two words", finish="length"))

    assert deltas == [Delta("text", "two "), Delta("text", "words")]
    assert answer == ChatAnswer("two words", "length", usage=Usage(1, 2, 3))


def test_each_piece_is_handed_on_before_the_next_is_there(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    arrived = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        exchange.write(HELLO)
        while not arrived.is_set():
            exchange.pause(0.01)
        exchange.write(STOP + DONE)
        exchange.end_stream()

    provider.script(script)
    deltas: list[Delta] = []

    def on_delta(delta: Delta) -> None:
        deltas.append(delta)
        arrived.set()

    assert OpenAI().chat(endpoint, REQUEST, Call(), on_delta).content == "Hello"
    assert deltas == SAID


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(
    provider: ScriptedProvider, endpoint: Endpoint, field: str
) -> None:
    thought = openai_chunk({field: "2 and 2"})

    answer, deltas = streamed(provider, endpoint, scripts.stream(thought, HELLO, STOP, DONE))

    assert (answer.content, answer.reasoning) == ("Hello", "2 and 2")
    assert deltas == [Delta("reasoning", "2 and 2"), *SAID]


def test_calls_of_tools_come_in_pieces(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]

    answer, deltas = streamed(
        provider, endpoint, scripts.answer(None, finish="tool_calls", tool_calls=calls)
    )

    assert (answer.tool_calls, answer.finish_reason) == (calls, "tool_calls")
    assert deltas[0] == Delta("tool_call", "", 0, "a", "f")
    assert deltas[1] == Delta("tool_call", '{"x"', 0)


def test_a_refusal_is_the_text_and_is_blamed(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    refusal = openai_chunk({"refusal": "I "}) + openai_chunk({"refusal": "can't."})

    answer, _ = streamed(provider, endpoint, scripts.stream(refusal, STOP, DONE))

    assert (answer.content, answer.finish_reason) == ("I can't.", "content_filter")


def test_half_an_emoji_in_each_of_two_pieces_is_one(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    halves = [openai_chunk({"content": half}) for half in ("a\ud83e", "\udd9cb")]

    answer, deltas = streamed(provider, endpoint, scripts.stream(*halves, STOP, DONE))

    assert answer.content == "a🦜b"
    assert [delta.text for delta in deltas] == ["a", "🦜b"]


ANSWERS = {
    "keep-alives": [b": still here\n\n", HELLO, b":\n\n", STOP, USAGE, DONE],
    "CRLF": [(HELLO + STOP + USAGE + DONE).replace(b"\n", b"\r\n")],
    "event names": [HELLO.replace(b"data", b"event: delta\ndata"), STOP, USAGE, DONE],
    "no space": [(HELLO + STOP + USAGE + DONE).replace(b"data: ", b"data:")],
    "no [DONE]": [HELLO, STOP, USAGE],
    "no end of the last event": [HELLO, STOP, USAGE, DONE.rstrip()],
    "more behind [DONE]": [HELLO, STOP, USAGE, DONE, b"data: {}\n\n" * 3],
    "usage in every piece": [HELLO, USAGE, STOP, USAGE, DONE],
    "nulls": [
        openai_chunk({"role": "assistant", "content": None, "tool_calls": None}, usage=None),
        HELLO,
        event({"choices": None}),
        event({"choices": [{"delta": None}]}),
        STOP,
        USAGE,
        DONE,
    ],
    "another choice": [HELLO, OTHER, STOP, USAGE, DONE],
    "byte order mark": [b"\xef\xbb\xbf" + HELLO, STOP, USAGE, DONE],
    "empty data": [b"data:\n\n", HELLO, b"data: \n\n", STOP, USAGE, DONE],
}


@pytest.mark.parametrize("pieces", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_in_any_form_is_the_same_one(
    provider: ScriptedProvider, endpoint: Endpoint, pieces: list[bytes]
) -> None:
    answer, deltas = streamed(provider, endpoint, scripts.stream(*pieces))

    assert deltas == SAID
    assert answer == ChatAnswer("Hello", "stop", usage=Usage(1, 2, 3))


def test_a_stream_that_ends_with_done_and_no_reason_is_complete(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    answer, _ = streamed(provider, endpoint, scripts.stream(HELLO, DONE))

    assert answer == ChatAnswer("Hello", None)


@pytest.mark.parametrize("ending", ["reset", "end"])
def test_what_goes_wrong_behind_the_end_takes_nothing_away(
    provider: ScriptedProvider, endpoint: Endpoint, ending: Any
) -> None:
    late = [b"data: {half", b"data: no JSON\n\n", event({"error": {"message": "late"}})]

    for piece in late:
        script = scripts.stream(HELLO, STOP, piece, ending=ending)
        assert streamed(provider, endpoint, script)[0].content == "Hello"


def test_a_document_in_place_of_a_stream_is_handed_on_whole(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    message = {"content": "Hello", "reasoning": "hm"}
    document = {"choices": [{"message": message, "finish_reason": "stop"}]}

    answer, deltas = streamed(provider, endpoint, scripts.document(document))

    assert deltas == [Delta("reasoning", "hm"), Delta("text", "Hello")]
    assert answer == ChatAnswer("Hello", "stop", reasoning="hm")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(places=st.lists(st.integers(0, 10_000), max_size=6))
@example(places=[40, 41, 42, 43])
def test_any_cut_through_the_bytes_gives_the_same_deltas(
    provider: ScriptedProvider, endpoint: Endpoint, places: list[int]
) -> None:
    data = "naïve 🦜 {} \u2028"
    chunks = [{"choices": [{"delta": {"content": letter}}]} for letter in data]
    body = "".join(f"data: {json.dumps(c, ensure_ascii=False)}\r\n\r\n" for c in chunks).encode()
    body += STOP + DONE
    bounds = [0, *sorted(place % len(body) for place in places), len(body)]
    pieces = [body[a:b] for a, b in pairwise(bounds) if a < b]

    _, deltas = streamed(provider, endpoint, scripts.stream(*pieces))

    assert [delta.text for delta in deltas] == list(data)


# --- no answers ---------------------------------------------------------------------------------

BROKEN: dict[str, tuple[Any, str]] = {
    "breaks off": (scripts.stream(HELLO), "broken_off"),
    "breaks off in the middle of a piece": (scripts.stream(HELLO, HELLO[:30]), "broken_off"),
    "reset": (scripts.stream(HELLO, 0.05, ending="reset"), "broken_off"),
    "error": (scripts.stream(HELLO, event({"error": {"message": "on fire"}})), "reported"),
    "error event": (scripts.stream(HELLO, event({"message": "on fire"}, "error")), "reported"),
    "no JSON": (scripts.stream(HELLO, b"data: on fire\n\n"), "unusable"),
    "no object": (scripts.stream(HELLO, b"data: [1]\n\n"), "unusable"),
    "NaN": (scripts.stream(HELLO, b'data: {"x": NaN}\n\n'), "unusable"),
    "content that is none": (scripts.stream(HELLO, openai_chunk({"content": 5})), "unusable"),
}


@pytest.mark.parametrize(("script", "reason"), BROKEN.values(), ids=BROKEN.keys())
def test_a_stream_that_breaks_is_an_error_and_what_came_was_handed_on(
    provider: ScriptedProvider, endpoint: Endpoint, script: Any, reason: str
) -> None:
    error, deltas = streamed_refusal(provider, endpoint, script)

    assert (type(error), error.details["reason"]) == (ProviderError, reason)
    assert deltas == SAID
    assert len(provider.calls) == 1


def test_an_error_in_the_middle_says_what_the_provider_says(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    said = event({"error": {"message": "too  busy", "code": 503}})

    error, _ = streamed_refusal(provider, endpoint, scripts.stream(HELLO, said))

    assert "too busy" in error.message
    assert error.details["http_status"] == 503


NOTHING: dict[str, tuple[Any, str]] = {
    "nothing": (scripts.stream(), "broken_off"),
    "nothing but keep-alives": (scripts.stream(b": hi\n\n" * 3), "broken_off"),
    "nothing but [DONE]": (scripts.stream(DONE), "unusable"),
    "HTML": (scripts.html(200), "unusable"),
    "an error's document": (scripts.document({"error": {"message": "no"}}), "reported"),
    "half a document": (scripts.raw(b'{"choices": ['), "unusable"),
    "no content": (scripts.raw(b"", 204), "http_status"),
}


@pytest.mark.parametrize(("script", "reason"), NOTHING.values(), ids=NOTHING.keys())
def test_what_is_no_answer_at_all_is_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, script: Any, reason: str
) -> None:
    error, deltas = streamed_refusal(provider, endpoint, script)

    assert (error.details["reason"], deltas) == (reason, [])


def test_an_endless_stream_is_given_up(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    error, deltas = streamed_refusal(provider, endpoint, scripts.endless_stream)

    assert error.details["reason"] == "too_large"
    assert deltas
    provider.wait_for_leaving()


def test_an_endless_line_is_given_up(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    long = b"data: " + b"x" * 2_000_000

    error, _ = streamed_refusal(provider, endpoint, scripts.stream(long, ending="stall"))

    assert error.details["reason"] == "too_large"


def test_an_error_of_who_takes_the_pieces_is_no_error_of_the_provider(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    def on_delta(_: Delta) -> None:
        raise ConnectionError("the database is gone")

    with pytest.raises(ConnectionError, match="database"):
        OpenAI().chat(endpoint, REQUEST, Call(), on_delta)


# --- time ---------------------------------------------------------------------------------------


def test_the_first_piece_has_its_time_and_keep_alives_do_not_count(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    keep_alive = [step for _ in range(40) for step in (b": wait\n\n", 0.05)]

    error, _ = streamed_refusal(
        provider, replace(endpoint, first_token_timeout=0.4), scripts.stream(*keep_alive)
    )

    assert (type(error), error.details["reason"]) == (ProviderTimeout, "first_token_timeout")
    provider.wait_for_leaving()


def test_headers_that_do_not_come_are_a_first_piece_that_does_not(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    error, _ = streamed_refusal(
        provider, replace(endpoint, first_token_timeout=0.3), scripts.after(15, scripts.echo)
    )

    assert error.details["reason"] == "first_token_timeout"


def test_between_two_pieces_there_is_another_time(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    impatient = replace(endpoint, first_token_timeout=20.0, read_timeout=0.3)

    error, deltas = streamed_refusal(
        provider, impatient, scripts.stream(HELLO, b": hi\n\n", ending="stall")
    )

    assert (type(error), error.details["reason"]) == (ProviderTimeout, "read_timeout")
    assert deltas == SAID


def test_a_long_answer_that_keeps_coming_is_not_given_up(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    impatient = replace(endpoint, first_token_timeout=20.0, read_timeout=3.0)

    answer, _ = streamed(provider, impatient, scripts.slow(40, 10))

    assert answer.content.endswith("38 39")


def test_all_of_it_has_its_time_too(provider: ScriptedProvider, endpoint: Endpoint) -> None:
    error, deltas = streamed_refusal(
        provider, replace(endpoint, total_timeout=3.0), scripts.slow(1_000, 20)
    )

    assert (type(error), error.details["reason"]) == (ProviderTimeout, "total_timeout")
    assert deltas


def test_a_connection_that_stays_open_behind_the_end_holds_nobody_up(
    provider: ScriptedProvider, endpoint: Endpoint
) -> None:
    script = scripts.stream(HELLO, STOP, DONE, ending="stall")

    answer, _ = streamed(provider, replace(endpoint, read_timeout=3.0), script)

    assert answer.content == "Hello"
    provider.wait_for_leaving()
