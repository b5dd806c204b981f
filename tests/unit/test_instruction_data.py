"""Each type's data: what is taken, and what is refused by the field's name and without its value."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmchatlinker.errors import InvalidData
from llmchatlinker.instruction_data.fields import check_storable
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.units.control import parse
from tests.unit.examples import INSTRUCTION_ID, MINIMAL

#: Other ways to say what is needed.
ALSO_VALID: list[tuple[str, dict[str, Any]]] = [
    ("USER_GET", {"username": "ada"}),
    ("USER_CREATE", {"username": "ada", "profile": "counts", "display_name": "Ada L."}),
    ("USER_LIST", {"limit": 1000, "after": 0}),
    ("CHAT_CREATE", {"title": "T", "usernames": ["ada"]}),
    ("CHAT_CREATE", {"title": "T", "usernames": ["ada"], "user_ids": [1], "system_prompt": "Be"}),
    ("CHAT_UPDATE", {"chat_id": 1, "add_users": [1, "ada"], "remove_users": ["bob"]}),
    ("CHAT_UPDATE", {"chat_id": 1, "active_message_id": 2**63 - 1, "turn_policy": "reject"}),
    ("CHAT_LOAD", {"chat_id": 1, "branch": "all", "limit": 1, "before": 7}),
    ("LLM_PROVIDER_ADD", {"name": "n", "api_endpoint": "https://x", "api_key": "sk-1"}),
    ("LLM_PROVIDER_UPDATE", {"provider_id": 1, "settings": {"timeouts": {"total": 3}}}),
    ("LLM_PROVIDER_DELETE", {"provider_id": 1, "force": True}),
    ("LLM_ADD", {"provider_name": "vLLM", "llm_name": "m"}),
    ("LLM_ADD", {"provider_id": 1, "llm_name": "m", "settings": {"context_window": 4096}}),
    ("LLM_ADD", {"provider_id": 1, "llm_name": "m", "settings": {"price": {"prompt": 0.15}}}),
    (
        "LLM_RESPONSE_GENERATE",
        {"user_id": 1, "chat_id": 1, "user_input": "Hi", "provider_name": "p", "llm_name": "m"},
    ),
    (
        "LLM_RESPONSE_GENERATE",
        {"user_id": 1, "chat_id": 1, "user_input": "Hi", "provider_id": 1, "llm_id": 1},
    ),
    ("LLM_RESPONSE_REGENERATE", {"message_id": 1, "parameters": {"temperature": 0.5}, "llm_id": 2}),
    ("USAGE_LIST", {"from": "2024-01-01T00:00:00Z", "to": "2024-02-01T00:00:00+02:00"}),
    ("INSTRUCTION_LIST", {"state": "final", "type": "USER_CREATE", "user_id": 1}),
]

REQUIRED = [
    (name, field)
    for name, example in MINIMAL.items()
    for field in example
    if INSTRUCTION_SET[name].data.model_fields[field].is_required()
]

#: Type, field, and a value that is not what the field takes.
WRONG: list[tuple[str, str, Any]] = [
    ("USER_CREATE", "username", 5),
    ("USER_CREATE", "username", ""),
    ("USER_CREATE", "username", " \t\n"),
    ("USER_CREATE", "username", "x" * 201),
    ("USER_CREATE", "username", ["ada"]),
    ("USER_CREATE", "profile", "x" * 10_001),
    ("USER_CREATE", "profile", {}),
    ("USER_CREATE", "display_name", True),
    ("USER_UPDATE", "user_id", "1"),
    ("USER_UPDATE", "user_id", True),
    ("USER_UPDATE", "user_id", 1.0),
    ("USER_UPDATE", "user_id", 0),
    ("USER_UPDATE", "user_id", -1),
    ("USER_UPDATE", "user_id", 2**31),
    ("USER_LIST", "limit", 0),
    ("USER_LIST", "limit", 1001),
    ("USER_LIST", "limit", True),
    ("USER_LIST", "after", -1),
    ("USER_LIST", "after", 2**63),
    ("CHAT_CREATE", "title", "x" * 201),
    ("CHAT_CREATE", "user_ids", []),
    ("CHAT_CREATE", "user_ids", [True]),
    ("CHAT_CREATE", "user_ids", ["ada"]),
    ("CHAT_CREATE", "user_ids", [1] * 1001),
    ("CHAT_CREATE", "usernames", "ada"),
    ("CHAT_CREATE", "system_prompt", "x" * 100_001),
    ("CHAT_CREATE", "turn_policy", "whatever"),
    ("CHAT_UPDATE", "add_users", [None]),
    ("CHAT_UPDATE", "add_users", [True]),
    ("CHAT_UPDATE", "active_message_id", 2**63),
    ("CHAT_LOAD", "branch", "ALL"),
    ("CHAT_SEARCH", "query", "  "),
    ("LLM_PROVIDER_ADD", "api_endpoint", "ftp://example.org"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "localhost:12500"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http://"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http:///v1"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http://user:pass@host/v1"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http://host/v1 v2"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http://host/\r\nX-Evil: 1"),
    ("LLM_PROVIDER_ADD", "api_endpoint", "http://" + "h" * 2_000),
    ("LLM_PROVIDER_ADD", "api_key", "two words"),
    ("LLM_PROVIDER_ADD", "api_key", "line\nbreak"),
    ("LLM_PROVIDER_ADD", "api_key", "schlüssel"),
    ("LLM_PROVIDER_ADD", "api_key", ""),
    ("LLM_PROVIDER_ADD", "kind", "grpc"),
    ("LLM_PROVIDER_ADD", "settings", {"colour": "red"}),
    ("LLM_PROVIDER_ADD", "settings", {"timeouts": {"connect": True}}),
    ("LLM_PROVIDER_ADD", "settings", {"timeouts": {"connect": "5"}}),
    ("LLM_PROVIDER_ADD", "settings", {"timeouts": {"total": 0}}),
    ("LLM_PROVIDER_ADD", "settings", {"timeouts": {"total": 3601}}),
    ("LLM_PROVIDER_ADD", "settings", {"parameters": {"model": "other"}}),
    ("LLM_PROVIDER_ADD", "settings", {"parameters": {"stream": True}}),
    ("LLM_PROVIDER_DELETE", "force", 1),
    ("LLM_PROVIDER_DELETE", "force", "yes"),
    ("LLM_ADD", "settings", {"context_window": 15}),
    ("LLM_ADD", "settings", {"context_window": True}),
    ("LLM_ADD", "settings", {"price": {"prompt": -1}}),
    ("LLM_ADD", "settings", {"price": {"prompt": True}}),
    ("LLM_RESPONSE_GENERATE", "user_input", "x" * 100_001),
    ("LLM_RESPONSE_GENERATE", "user_input", " "),
    ("LLM_RESPONSE_GENERATE", "parameters", {"messages": []}),
    ("LLM_RESPONSE_GENERATE", "parameters", {f"p{n}": n for n in range(101)}),
    ("LLM_RESPONSE_GENERATE", "parameters", [1]),
    ("LLM_RESPONSE_GENERATE", "fallbacks", {}),
    ("LLM_RESPONSE_CANCEL", "instruction_id", "not an id"),
    ("LLM_RESPONSE_CANCEL", "instruction_id", INSTRUCTION_ID + "\n"),
    ("INSTRUCTION_LIST", "state", "lost"),
    ("USAGE_LIST", "from", "yesterday"),
    ("USAGE_LIST", "from", 5),
    ("USAGE_LIST", "to", True),
]

#: Something in every wrong value that would show if a message repeated it.
MARK = "s3cr3t-value"


def refused(name: str, data: dict[str, Any]) -> InvalidData:
    with pytest.raises(InvalidData) as caught:
        parse(INSTRUCTION_SET[name].data, data)
    return caught.value


def named(error: InvalidData) -> list[str]:
    return [item["field"] for item in error.details["fields"]]


def test_every_type_has_an_example() -> None:
    assert set(MINIMAL) == set(INSTRUCTION_SET)


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_the_smallest_data_is_taken(name: str) -> None:
    data = parse(INSTRUCTION_SET[name].data, MINIMAL[name])

    given = data.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    assert given == MINIMAL[name]


@pytest.mark.parametrize(("name", "data"), ALSO_VALID)
def test_everything_that_the_contract_lists_is_taken(name: str, data: dict[str, Any]) -> None:
    parse(INSTRUCTION_SET[name].data, data)


@pytest.mark.parametrize(("name", "data"), [*MINIMAL.items(), *ALSO_VALID])
def test_what_decode_hands_on_is_read_back_as_the_same(name: str, data: dict[str, Any]) -> None:
    model = INSTRUCTION_SET[name].data
    first = parse(model, data)

    assert parse(model, json.loads(json.dumps(first.model_dump(mode="json")))) == first


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_null_in_an_optional_field_is_the_same_as_leaving_it_out(name: str) -> None:
    model = INSTRUCTION_SET[name].data
    optional = {f.alias or own for own, f in model.model_fields.items() if not f.is_required()}
    data = dict.fromkeys(optional) | MINIMAL[name]

    assert parse(model, data) == parse(model, MINIMAL[name])


@pytest.mark.parametrize(("name", "field"), REQUIRED)
@pytest.mark.parametrize("how", ["left out", "null"])
def test_a_missing_field_is_named(name: str, field: str, how: str) -> None:
    data = {key: value for key, value in MINIMAL[name].items() if key != field}
    if how == "null":
        data[field] = None

    error = refused(name, data)

    assert named(error) == [field]
    assert error.message == f"{field}: is missing"


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_an_unknown_field_is_named(name: str) -> None:
    error = refused(name, MINIMAL[name] | {"colour": MARK})

    assert named(error) == ["colour"]
    assert error.message.startswith("colour: ")
    assert MARK not in error.message + str(error.details)


@pytest.mark.parametrize("unknown", ["user-id", "from now on", "1st", "größe", "constrained-int"])
def test_an_unknown_field_is_named_whatever_it_is_called(unknown: str) -> None:
    error = refused("USER_LIST", {unknown: MARK})

    assert named(error) == [unknown]
    assert error.message.startswith(f"{unknown}: ")


@pytest.mark.parametrize(("name", "field", "value"), WRONG)
def test_a_wrong_value_is_refused_by_its_fields_name(name: str, field: str, value: Any) -> None:
    error = refused(name, MINIMAL[name] | {field: value})

    assert {where.split(".")[0] for where in named(error)} == {field}
    assert error.message.startswith(field)


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_no_wrong_value_is_repeated(name: str) -> None:
    model = INSTRUCTION_SET[name].data
    for own, field in model.model_fields.items():
        for value in ([MARK], {"x": MARK}, MARK * 20_000):
            try:
                parse(model, MINIMAL[name] | {field.alias or own: value})
            except InvalidData as error:
                assert MARK not in error.message + str(error.details)


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("USER_GET", {}, "user_id or username"),
        ("USER_GET", {"user_id": 1, "username": "ada"}, "user_id or username"),
        ("CHAT_CREATE", {"title": "T"}, "usernames or user_ids"),
        ("LLM_ADD", {"llm_name": "m"}, "provider_id or provider_name"),
        (
            "LLM_RESPONSE_GENERATE",
            {"user_id": 1, "chat_id": 1, "user_input": "Hi", "llm_name": "m"},
            "llm_id, or provider_name and llm_name",
        ),
    ],
)
def test_one_of_several_fields_is_asked_for(name: str, data: dict[str, Any], said: str) -> None:
    assert said in refused(name, data).message


def test_a_very_long_field_name_is_not_repeated_at_length() -> None:
    error = refused("USER_LIST", {"x" * 500_000: 1})

    assert len(error.message) + len(str(error.details)) < 2_000


def test_many_wrong_fields_are_not_all_repeated() -> None:
    error = refused("USER_LIST", {f"field_{number}": number for number in range(1_000)})

    assert len(named(error)) <= 20
    assert len(error.message) < 1_000


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ({"username": "a\x00b"}, "username"),
        ({"username": "a\ud800b"}, "username"),
        ({"usernames": ["ok", "\udfff"]}, "usernames[1]"),
        ({"parameters": {"stop": ["\x00"]}}, "parameters.stop[0]"),
        ({"a\x00": 1}, "a key of data"),
        ({"\ud800": 1}, "a key of data"),
        ({"parameters": {1: 2}}, "parameters"),
    ],
)
def test_text_that_postgresql_cannot_keep_is_refused(value: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidData) as caught:
        check_storable(value)

    assert named(caught.value) == [field]
    json.dumps(caught.value.details, ensure_ascii=False).encode("utf-8")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


field_names = st.sampled_from(sorted({field for data in MINIMAL.values() for field in data}))


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(MINIMAL)),
    data=st.dictionaries(field_names | st.text(), json_values, max_size=4),
)
def test_no_data_whatever_raises_anything_but_invalid_data(name: str, data: dict[str, Any]) -> None:
    try:
        parse(INSTRUCTION_SET[name].data, data)
    except InvalidData as error:
        assert error.details["fields"]
