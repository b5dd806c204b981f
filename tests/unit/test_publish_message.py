"""What ``publish_message`` makes of a text before anything is submitted."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchatlinker.errors import InvalidData
from llmchatlinker.message_queue import parse_message, publish_message
from llmchatlinker.orchestrator import submit


def refusal(message: str | bytes) -> dict[str, Any]:
    """The envelope of a message that is refused at once, read as a client reads it."""
    text = publish_message(message)
    envelope: dict[str, Any] = json.loads(text.encode("utf-8"))
    assert envelope["status"] == "error"
    assert envelope["instruction_id"] is None
    assert envelope["data"] == {}
    assert envelope["error"]["stage"] == "decode"
    assert len(text) < 4_000
    return envelope


def refused_field(message: str) -> str:
    fields = refusal(message)["error"]["details"]["fields"]
    return str(fields[0]["field"])


def nested(depth: int) -> str:
    return '{"type": "USER_LIST", "data": {"x": ' + "[" * depth + "]" * depth + "}}"


@pytest.mark.parametrize(
    "message",
    [
        "",
        " ",
        "hello",
        "{",
        '{"type": "USER_LIST"',
        "{'type': 'USER_LIST'}",
        '{"type": "USER_LIST",}',
        '{"type": NaN}',
        '{"type": "USER_LIST", "data": {"limit": NaN}}',
        '{"type": "USER_LIST", "data": {"limit": Infinity}}',
        '{"type": "USER_LIST", "deadline": -Infinity}',
        '{"type": "USER_LIST", "data": {"limit": ' + "9" * 5_000 + "}}",
        '\ufeff{"type": "USER_LIST"}',
        b"\xff\xfe\xfd",
        b'{"type": "\xc3\x28"}',
        b"\x80\x04\x95\x0b\x00",
    ],
)
def test_what_is_not_json_is_refused(message: str | bytes) -> None:
    envelope = refusal(message)

    assert envelope["error"]["code"] == "invalid_data"
    assert "JSON" in envelope["message"] or "UTF-8" in envelope["message"]


def test_where_json_breaks_is_said() -> None:
    assert "line 2, column 3" in refusal('{"type":\n  USER_LIST}')["message"]


@pytest.mark.parametrize("message", ["[]", "5", "null", "true", '"USER_LIST"', '[{"type": 1}]'])
def test_json_that_is_no_object_is_refused(message: str) -> None:
    envelope = refusal(message)

    assert envelope["error"]["code"] == "invalid_data"
    assert "object" in envelope["message"]


@pytest.mark.parametrize("depth", [2_000, 100_000, 500_000])
def test_what_is_nested_too_deeply_is_refused(depth: int) -> None:
    assert refusal(nested(depth))["error"]["code"] == "invalid_data"


def test_data_that_is_nested_too_deeply_is_refused_from_python_too() -> None:
    data: dict[str, Any] = {}
    for _ in range(sys.getrecursionlimit() + 100):
        data = {"x": data}

    with pytest.raises(InvalidData):
        submit("USER_LIST", data)


def test_twenty_megabytes_are_refused_without_being_read() -> None:
    message = '{"type": "USER_CREATE", "data": {"username": "' + "x" * 20_000_000 + '"}}'

    envelope = refusal(message)

    assert envelope["error"]["code"] == "invalid_data"
    assert envelope["error"]["details"]["limit"] == 1_048_576


def test_size_counts_in_bytes() -> None:
    # 600 000 characters, but 1.8 MB.
    message = json.dumps({"type": "USER_LIST", "data": {"x": "€" * 600_000}}, ensure_ascii=False)

    assert refusal(message)["error"]["details"]["limit"] == 1_048_576


def test_a_type_that_nobody_knows_gets_a_hint() -> None:
    envelope = refusal('{"type": "USER_CRAETE", "data": {}}')

    assert envelope["error"]["code"] == "unknown_instruction"
    assert "Did you mean USER_CREATE?" in envelope["message"]
    assert "USER_CREATE" in envelope["error"]["details"]["known"]


@pytest.mark.parametrize("value", ["null", "5", "[]", "{}", "true", '"user_create"', '"\\ud800"'])
def test_a_type_that_is_no_types_name_is_refused(value: str) -> None:
    assert refusal(f'{{"type": {value}}}')["error"]["code"] == "unknown_instruction"


def test_a_message_without_a_type_is_refused() -> None:
    assert refused_field('{"data": {}}') == "type"


@pytest.mark.parametrize("field", ["Type", "user_id", "", "a b", "größe"])
def test_a_field_beside_the_four_is_refused_by_name(field: str) -> None:
    assert refused_field(json.dumps({"type": "USER_LIST", field: 1})) == field


def test_a_field_whose_name_is_no_valid_text_is_refused_with_valid_text() -> None:
    envelope = refusal('{"type": "USER_LIST", "\\ud800": 1}')

    assert envelope["error"]["code"] == "invalid_data"


@pytest.mark.parametrize("data", ["[]", '"x"', "5", "true"])
def test_data_that_is_no_object_is_refused(data: str) -> None:
    assert refused_field(f'{{"type": "USER_LIST", "data": {data}}}') == "data"


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "1e999", "true", '"60"', "[]"])
def test_a_deadline_that_is_none_is_refused(seconds: str) -> None:
    assert refused_field(f'{{"type": "USER_LIST", "deadline": {seconds}}}') == "deadline"


@pytest.mark.parametrize("key", ['""', "5", "true", "[]", f'"{"k" * 201}"', '"\\u0000"'])
def test_an_idempotency_key_that_is_none_is_refused(key: str) -> None:
    assert refused_field(f'{{"type": "USER_LIST", "idempotency_key": {key}}}') == "idempotency_key"


@pytest.mark.parametrize("text", ["\\u0000", "\\ud800", "a\\udfffb"])
def test_text_that_cannot_be_kept_is_refused_by_its_field(text: str) -> None:
    message = f'{{"type": "USER_CREATE", "data": {{"username": "{text}"}}}}'

    assert refused_field(message) == "username"


def test_null_is_the_same_as_leaving_out() -> None:
    message = '{"type": "USER_LIST", "data": null, "deadline": null, "idempotency_key": null}'

    assert parse_message(message) == {"type": "USER_LIST", "data": {}}


def test_bytes_are_as_good_as_text() -> None:
    assert parse_message(b'{"type": "USER_LIST"}') == {"type": "USER_LIST", "data": {}}


@given(st.text() | st.binary())
def test_no_text_whatever_raises_anything_but_invalid_data(message: str | bytes) -> None:
    try:
        parse_message(message)
    except InvalidData as error:
        json.dumps([error.message, error.details], ensure_ascii=False).encode("utf-8")
