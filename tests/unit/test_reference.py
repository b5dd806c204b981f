"""docs/reference/ is what the code says, and what the code doesn't say names nothing that isn't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.units.control import parse
from tools.reference import texts
from tools.reference.__main__ import PAGES, ROOT
from tools.reference.examples import recorded
from tools.reference.instructions_page import INSIDE, laid_out, method

each_type = pytest.mark.parametrize("name", sorted(INSTRUCTION_SET))
each_object = pytest.mark.parametrize("name", sorted(texts.OBJECTS))


@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_page_of_the_reference_is_what_the_code_says(path: str) -> None:
    page: Callable[[], str] = PAGES[path]
    assert (ROOT / path).read_text(encoding="utf-8") == page(), "run `make reference`"


@each_type
def test_the_reference_has_every_type_in_one_section(name: str) -> None:
    listed = [item for _, _, names in texts.SECTIONS for item in names]
    assert listed.count(name) == 1


def test_the_reference_has_no_type_that_is_not_there() -> None:
    listed = {item for _, _, names in texts.SECTIONS for item in names}
    assert listed | set(texts.ABOUT) | set(texts.ERRORS) == set(INSTRUCTION_SET)


@each_type
def test_the_reference_says_what_a_type_does(name: str) -> None:
    assert texts.ABOUT[name].endswith((".", ")"))
    assert method(name)


def test_the_codes_of_the_reference_are_codes() -> None:
    codes = {code for errors in texts.ERRORS.values() for code in errors}
    assert codes <= {kind.code for kind in _kinds(LLMChatLinkerError)}


def _kinds(kind: type[LLMChatLinkerError]) -> Iterator[type[LLMChatLinkerError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def test_every_meaning_is_that_of_a_field() -> None:
    models = [(spec.name, spec.data) for spec in INSTRUCTION_SET.values()]
    models += [(heading, model) for heading, model, _ in INSIDE]
    named = {item.alias or n for _, model in models for n, item in model.model_fields.items()}
    assert {key.rpartition(".")[2] for key in texts.FIELDS} == named
    assert {key.rpartition(".")[0] for key in texts.FIELDS} <= {"", *INSTRUCTION_SET}


@each_type
def test_an_example_is_valid_data_of_its_type(name: str) -> None:
    parse(INSTRUCTION_SET[name].data, recorded()[name]["data"])


@each_type
def test_every_type_has_an_example_that_was_run(name: str) -> None:
    assert recorded()[name]["envelope"]["status"] == "success", "run `make reference`"


@each_object
def test_the_reference_has_the_fields_that_objects_have(name: str) -> None:
    shown: set[str] = set()
    for example in recorded().values():
        for found in _objects(example["envelope"]["data"], name):
            shown |= set(found)
    # What the examples don't show: of answers with tools, of turns that were rolled back, …
    rare = {
        "tool_calls",
        "reasoning",
        "hidden",
        "erased",
        "former_user_id",
        "idempotency_key",
        "message",
        "details",
    }
    assert set(texts.OBJECTS[name]) - rare == shown - rare


def _objects(data: Any, name: str) -> Iterator[dict[str, Any]]:
    """The objects of that name in result data. Members in a chat are cut short, and left out."""
    if not isinstance(data, dict):
        return
    for key, value in data.items():
        for item in value if isinstance(value, list) else [value]:
            if texts.HOLDS.get(key) == name and isinstance(item, dict) and not _is_part(key, data):
                yield item
            yield from _objects(item, name)


def _is_part(key: str, data: dict[str, Any]) -> bool:
    return key in ("users", "usage") and ("chat_id" in data or "role" in data)


def test_json_is_laid_out_in_lines_of_a_page() -> None:
    value = {"name": "x" * 60, "list": ["y" * 50, "z" * 50], "empty": {}, "number": 1}
    assert max(len(line) for line in laid_out(value).splitlines()) <= 100
