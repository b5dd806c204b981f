"""OpenAI's wire over real HTTP: whatever comes back, it is an answer that can be kept or an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmchatlinker.errors import ProviderError
from llmchatlinker.providers.base import Endpoint
from llmchatlinker.providers.openai import OpenAI
from tests.fixtures.wires import chat
from tests.servers import scripts
from tests.servers.provider import ScriptedProvider

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "content", "tool_calls", "reasoning", "error", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": anything,
        "tool_calls": anything,
        "reasoning_content": anything,
        "reasoning": anything,
    },
)
choices = st.lists(
    anything
    | st.fixed_dictionaries({"message": anything | messages}, optional={"finish_reason": anything}),
    max_size=2,
)
documents = anything | st.fixed_dictionaries(
    {"choices": anything | choices}, optional={"usage": anything, "error": anything}
)
whatever = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@whatever
@given(document=documents)
def test_any_document_is_an_answer_that_can_be_kept_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, document: Any
) -> None:
    try:
        answer = chat(provider, endpoint, scripts.document(document))
    except ProviderError:
        return
    kept = [answer.content, answer.finish_reason, answer.reasoning, answer.tool_calls]
    text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    assert "\x00" not in text.encode("utf-8").decode("utf-8")


@whatever
@given(body=st.binary() | anything.map(lambda value: json.dumps(value).encode()))
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
def test_any_body_whatever_is_an_answer_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, status: int, body: bytes
) -> None:
    try:
        chat(provider, endpoint, scripts.raw(body, status))
    except ProviderError as error:
        json.dumps([error.message, error.details], ensure_ascii=False).encode("utf-8")


@whatever
@given(document=anything | st.fixed_dictionaries({"data": anything}))
def test_any_list_of_models_is_names_or_an_error(
    provider: ScriptedProvider, endpoint: Endpoint, document: Any
) -> None:
    provider.models_script = scripts.document(document)
    try:
        names = OpenAI().models(endpoint)
    except ProviderError:
        return
    assert all(isinstance(name, str) for name in names)
