"""What holds on every wire: OpenAI's, Anthropic's and Ollama's, whole and in pieces."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchatlinker.errors import Cancelled, ProviderError
from llmchatlinker.providers.base import ChatAnswer, Delta, Endpoint, Usage
from llmchatlinker.providers.calls import Call
from llmchatlinker.providers.registry import WIRES, wire
from tests.fixtures.wires import KEY, REQUEST, streamed, streamed_refusal
from tests.servers import scripts
from tests.servers.provider import Exchange, ScriptedProvider
from tests.servers.shapes import Said, event, frames

CALLS = [
    {"id": "call_0", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"id": "call_1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
BODY = {"model": "echo", "messages": [{"content": "Hello"}], "stream": True}

each_kind = pytest.mark.parametrize("kind", sorted(WIRES))


@pytest.fixture
def kind_at(provider: ScriptedProvider, endpoint: Endpoint, kind: str) -> Endpoint:
    """Where the kind is spoken to."""
    return endpoint if kind == "openai" else replace(endpoint, url=provider.root_url)


def whole(provider: ScriptedProvider, endpoint: Endpoint, kind: str, script: Any) -> ChatAnswer:
    provider.script(script)
    return wire(kind).chat(endpoint, REQUEST, Call())


def first_frames(kind: str, count: int, text: str = "one two three") -> bytes:
    """So many frames of a stream that never gets to its end."""
    found = list(frames(PATHS[kind], BODY, Said(text)))
    return b"".join(frame.data for frame in found[: len(found) - 3][:count])


ANSWERS: dict[str, tuple[dict[str, Any], ChatAnswer]] = {
    "text": ({"text": "two words"}, ChatAnswer("two words", "stop", usage=Usage(1, 2, 3))),
    "cut": (
        {"text": "two words", "finish": "length"},
        ChatAnswer("two words", "length", usage=Usage(1, 2, 3)),
    ),
    "without usage": ({"text": "two words", "usage": False}, ChatAnswer("two words", "stop")),
    "reasoning": (
        {"text": "4", "reasoning_content": "2 and 2"},
        ChatAnswer("4", "stop", reasoning="2 and 2", usage=Usage(1, 1, 2)),
    ),
    "tools": (
        {"text": "Let me look.", "finish": "tool_calls", "tool_calls": CALLS},
        ChatAnswer("Let me look.", "tool_calls", CALLS, usage=Usage(1, 3, 4)),
    ),
}


@each_kind
@pytest.mark.parametrize(("said", "wanted"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_is_the_same_whole_and_in_pieces(
    provider: ScriptedProvider,
    kind_at: Endpoint,
    kind: str,
    said: dict[str, Any],
    wanted: ChatAnswer,
) -> None:
    at_once = whole(provider, kind_at, kind, scripts.answer(**said))
    in_pieces, deltas = streamed(provider, kind_at, scripts.answer(**said), kind)

    assert at_once == in_pieces == wanted
    assert len(deltas) > 1 or wanted.content == "4"
    assert provider.connections == 1


@each_kind
def test_a_tool_that_takes_nothing_is_called_with_an_empty_object(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    answer, _ = streamed(provider, kind_at, scripts.answer(None, tool_calls=CALLS[1:]), kind)

    assert (answer.tool_calls or [])[0]["function"] == {"name": "g", "arguments": "{}"}


@each_kind
def test_the_key_goes_where_the_kind_wants_it(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    streamed(provider, replace(kind_at, headers={"X-Tenant": "t"}), scripts.echo, kind)

    sent = provider.calls[0].headers
    assert sent["x-tenant"] == "t"
    if kind == "anthropic":
        assert (sent["x-api-key"], sent["anthropic-version"]) == (KEY, "2023-06-01")
        assert "authorization" not in sent
    else:
        assert sent["authorization"] == f"Bearer {KEY}"


@each_kind
def test_a_base_and_a_full_url_lead_to_the_same_place(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    for written in (provider.root_url, provider.root_url + "/", provider.root_url + PATHS[kind]):
        streamed(provider, replace(kind_at, url=written), scripts.echo, kind)

    assert {call.path for call in provider.calls} == {PATHS[kind]}
    assert len(provider.calls) == 3


@each_kind
def test_the_models_are_listed_in_order(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    provider.models = ["zeta", "alpha"]

    assert wire(kind).models(kind_at) == ["alpha", "zeta"]


@each_kind
def test_a_refusal_is_one_on_every_wire(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    error, _ = streamed_refusal(
        provider, kind_at, scripts.error(429, "slow down", Retry_After="3"), kind
    )

    assert (error.details["http_status"], error.details["retry_after"]) == (429, 3)
    assert "slow down" in error.message


@each_kind
@pytest.mark.parametrize("ending", ["end", "reset"])
def test_a_stream_that_breaks_off_is_an_error_on_every_wire(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str, ending: Any
) -> None:
    start = first_frames(kind, 20)

    error, deltas = streamed_refusal(
        provider, kind_at, scripts.stream(start, 0.05, ending=ending), kind
    )

    assert error.details["reason"] == "broken_off"
    assert deltas


@each_kind
@pytest.mark.parametrize(
    "script", [scripts.stream(), scripts.html(200), scripts.raw(b"{half")], ids=["no", "HTML", "{"]
)
def test_what_is_no_answer_is_an_error_on_every_wire(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str, script: Any
) -> None:
    _, deltas = streamed_refusal(provider, kind_at, script, kind)

    assert deltas == []


@each_kind
def test_a_cancel_in_the_middle_hangs_up_on_every_wire(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    provider.script(scripts.slow(1_000, 50))
    call = Call()
    deltas: list[Delta] = []

    def on_delta(delta: Delta) -> None:
        deltas.append(delta)
        if len(deltas) == 3:
            threading.Thread(target=call.cancel).start()

    with pytest.raises(Cancelled):
        wire(kind).chat(kind_at, REQUEST, call, on_delta)

    provider.wait_for_leaving()


@each_kind
def test_a_byte_at_a_time_is_the_same_answer(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str
) -> None:
    text = "naïve 🦜 words é"

    def script(exchange: Exchange) -> None:
        exchange.start_stream()
        body = b"".join(frame.data for frame in frames(PATHS[kind], BODY, Said(text)))
        for place in range(len(body)):
            exchange.write(body[place : place + 1])
        exchange.end_stream()

    answer, deltas = streamed(provider, kind_at, script, kind)

    assert answer.content == text
    assert [delta.text for delta in deltas] == ["naïve ", "🦜 ", "words ", "é"]


NAMES = [
    *("type", "index", "delta", "content_block", "message", "content", "text", "usage", "error"),
    *("thinking", "tool_calls", "function", "name", "arguments", "done", "choices", "id", "input"),
]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
documents = anything | st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message_start", "content_block_start", "content_block_delta", "message_delta"]
        )
    },
    optional={
        "index": anything,
        "content_block": anything,
        "delta": anything,
        "message": anything,
        "usage": anything,
    },
)


@each_kind
@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(said=st.lists(documents, max_size=4))
def test_any_documents_whatever_are_an_answer_that_can_be_kept_or_an_error(
    provider: ScriptedProvider, kind_at: Endpoint, kind: str, said: list[Any]
) -> None:
    lines = [json.dumps(item).encode() + b"\n" for item in said]
    pieces = lines if kind == "ollama" else [event(item) for item in said]
    for script in (scripts.stream(*pieces), scripts.raw(b"".join(lines))):
        provider.script(script)
        deltas: list[Delta] = []
        try:
            answer = wire(kind).chat(kind_at, REQUEST, Call(), deltas.append)
        except ProviderError:
            continue
        json.dumps(
            [answer.content, answer.tool_calls, answer.reasoning], ensure_ascii=False
        ).encode()
