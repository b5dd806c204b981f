"""The error tree: closed codes, and errors that rebuild from their positional arguments."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Iterator

import pytest
from celery.exceptions import TimeoutError as CeleryTimeoutError

from llmchatlinker import errors
from llmchatlinker.celery_app import app
from llmchatlinker.envelope import failure, success
from llmchatlinker.errors import LLMChatLinkerError

CODES = {
    "unknown_instruction",
    "invalid_data",
    "not_found",
    "conflict",
    "not_a_member",
    "chat_busy",
    "overloaded",
    "provider_error",
    "provider_timeout",
    "cancelled",
    "deadline_exceeded",
    "in_doubt",
    "poisoned",
    "internal",
    "configuration",
    "unavailable",
    "start_failed",
    "result_timeout",
}


def _tree(kind: type[LLMChatLinkerError]) -> Iterator[type[LLMChatLinkerError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from _tree(child)


KINDS = list(_tree(LLMChatLinkerError))
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def test_the_codes_are_those_of_the_contract() -> None:
    assert {kind.code for kind in KINDS} == CODES


def test_no_two_errors_share_a_code() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)


@each_kind
def test_an_error_without_a_message_says_its_docstring(kind: type[LLMChatLinkerError]) -> None:
    assert str(kind()) == (inspect.getdoc(kind) or "").split("\n")[0]


@each_kind
def test_an_error_rebuilds_from_its_arguments(kind: type[LLMChatLinkerError]) -> None:
    error = kind("It broke.", {"field": "x"})

    again = kind(*error.args)

    assert (again.message, again.details, again.code) == ("It broke.", {"field": "x"}, kind.code)


@each_kind
def test_an_error_survives_being_pickled(kind: type[LLMChatLinkerError]) -> None:
    again = pickle.loads(pickle.dumps(kind("It broke.", {"field": "x"})))

    assert type(again) is kind
    assert (again.message, again.details) == ("It broke.", {"field": "x"})


@each_kind
def test_an_error_survives_celerys_json(kind: type[LLMChatLinkerError]) -> None:
    stored = app.backend.prepare_exception(kind("It broke.", {"field": "x"}), serializer="json")

    again = app.backend.exception_to_python(stored)

    assert type(again) is kind
    assert (again.message, again.details) == ("It broke.", {"field": "x"})


def test_celerys_users_catch_a_timeout_as_they_know_it() -> None:
    assert issubclass(errors.ResultTimeout, CeleryTimeoutError)


def test_a_provider_timeout_is_a_provider_error() -> None:
    assert issubclass(errors.ProviderTimeout, errors.ProviderError)


def test_a_failed_start_knows_the_remedy() -> None:
    error = errors.StartFailed("No disk.", {"remedy": "Buy one."})

    assert error.remedy == "Buy one."
    assert errors.StartFailed("No disk.").remedy == ""


def test_the_details_of_two_errors_are_not_the_same_object() -> None:
    assert errors.NotFound().details is not errors.NotFound().details


def test_an_envelope_of_success_has_data_and_no_error() -> None:
    assert success("id", {"user": {}}, "User created.") == {
        "status": "success",
        "message": "User created.",
        "data": {"user": {}},
        "instruction_id": "id",
    }


def test_an_envelope_of_failure_says_what_and_where() -> None:
    assert failure(None, errors.NotFound("Gone.", {"field": "user_id"}), "execute") == {
        "status": "error",
        "message": "Gone.",
        "data": {},
        "instruction_id": None,
        "error": {"code": "not_found", "stage": "execute", "details": {"field": "user_id"}},
    }
