"""The table of instructions against the contract: each type once, with its unit, queue and method."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

from llmchatlinker import instructions
from llmchatlinker.celery_app import ROOT
from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import UnknownInstruction
from llmchatlinker.instructions import ALIASES, INSTRUCTION_SET, instruction_type
from llmchatlinker.topology import DECODE_TASK, STORE_TASK

#: Type → the unit that executes it, and the client's method for it.
CONTRACT = {
    "USER_CREATE": ("user", "create_user"),
    "USER_UPDATE": ("user", "update_user"),
    "USER_DELETE": ("user", "delete_user"),
    "USER_LIST": ("user", "list_users"),
    "USER_GET": ("user", "get_user"),
    "USER_INSTRUCTION_RECORDING_ENABLE": ("user", "enable_instruction_recording"),
    "USER_INSTRUCTION_RECORDING_DISABLE": ("user", "disable_instruction_recording"),
    "USER_INSTRUCTION_RECORDS_DELETE": ("user", "delete_instruction_records"),
    "USER_INSTRUCTION_RECORDING_LIST": ("user", "list_instruction_records"),
    "CHAT_CREATE": ("chat", "create_chat"),
    "CHAT_UPDATE": ("chat", "update_chat"),
    "CHAT_DELETE": ("chat", "delete_chat"),
    "CHAT_LOAD": ("chat", "get_chat"),
    "CHAT_LIST": ("chat", "list_chats"),
    "CHAT_LIST_BY_USER": ("chat", "list_user_chats"),
    "CHAT_SEARCH": ("chat", "search_chats"),
    "CHAT_EXPORT": ("chat", "export_chat"),
    "LLM_PROVIDER_ADD": ("llm", "add_llm_provider"),
    "LLM_PROVIDER_UPDATE": ("llm", "update_llm_provider"),
    "LLM_PROVIDER_DELETE": ("llm", "delete_llm_provider"),
    "LLM_PROVIDER_LIST": ("llm", "list_llm_providers"),
    "LLM_PROVIDER_DISCOVER": ("llm", "discover_llms"),
    "LLM_ADD": ("llm", "add_llm"),
    "LLM_UPDATE": ("llm", "update_llm"),
    "LLM_DELETE": ("llm", "delete_llm"),
    "LLM_LIST": ("llm", "list_llms"),
    "LLM_LIST_BY_PROVIDER": ("llm", "list_llms_by_provider"),
    "LLM_RESPONSE_GENERATE": ("llm", "generate_llm_response"),
    "LLM_RESPONSE_REGENERATE": ("llm", "regenerate_llm_response"),
    "LLM_RESPONSE_CANCEL": ("llm", "cancel_llm_response"),
    "INSTRUCTION_GET": ("database", "get_instruction"),
    "INSTRUCTION_LIST": ("database", "list_instructions"),
    "USAGE_LIST": ("database", "list_usage"),
    "USER_EXPORT": ("database", "export_user"),
    "USER_ERASE": ("database", "erase_user"),
}
GENERATIONS = {"LLM_RESPONSE_GENERATE", "LLM_RESPONSE_REGENERATE"}

each_type = pytest.mark.parametrize("name", sorted(CONTRACT))


def test_the_table_has_every_type_of_the_contract_and_no_other() -> None:
    assert set(INSTRUCTION_SET) == set(CONTRACT)


@each_type
def test_a_type_is_importable_under_its_name(name: str) -> None:
    assert getattr(instructions, name) is INSTRUCTION_SET[name]
    assert INSTRUCTION_SET[name].name == name


@each_type
def test_a_type_belongs_to_its_unit(name: str) -> None:
    assert INSTRUCTION_SET[name].unit == CONTRACT[name][0]


@each_type
def test_a_type_goes_to_its_units_queue_but_generations_have_their_own(name: str) -> None:
    wanted = "llm.generate" if name in GENERATIONS else CONTRACT[name][0]

    assert INSTRUCTION_SET[name].queue == wanted


@each_type
def test_a_task_is_named_after_unit_and_type(name: str) -> None:
    unit = CONTRACT[name][0]

    assert INSTRUCTION_SET[name].task_name == f"llmchatlinker.{unit}.{name.lower()}"


@each_type
def test_the_client_has_a_method_for_each_type(name: str) -> None:
    method = getattr(LLMChatLinkerClient, CONTRACT[name][1])

    assert (method.__doc__ or "").startswith(name)


@each_type
def test_the_clients_method_takes_the_data_fields_by_name(name: str) -> None:
    method = inspect.signature(getattr(LLMChatLinkerClient, CONTRACT[name][1]))
    fields = INSTRUCTION_SET[name].data.model_fields
    names = {field.alias or own for own, field in fields.items()}
    # Python has taken the word ``from``.
    names = {"from_" if wanted == "from" else wanted for wanted in names}

    assert names <= set(method.parameters)


def test_only_generations_take_turns() -> None:
    assert {item.name for item in INSTRUCTION_SET.values() if item.takes_turn} == GENERATIONS


def test_no_two_types_share_a_task_or_a_handler() -> None:
    assert len({item.task_name for item in INSTRUCTION_SET.values()}) == len(CONTRACT)
    assert len({id(item.handler) for item in INSTRUCTION_SET.values()}) == len(CONTRACT)


def test_every_type_says_what_it_has_done() -> None:
    assert all(item.done.endswith(".") for item in INSTRUCTION_SET.values())


def test_an_alias_is_the_same_instruction() -> None:
    assert ALIASES == {"USER_INSTRUCTION_RECORDS_LIST": "USER_INSTRUCTION_RECORDING_LIST"}
    assert (
        instruction_type("USER_INSTRUCTION_RECORDS_LIST")
        is INSTRUCTION_SET["USER_INSTRUCTION_RECORDING_LIST"]
    )
    assert (
        instructions.USER_INSTRUCTION_RECORDS_LIST
        is INSTRUCTION_SET["USER_INSTRUCTION_RECORDING_LIST"]
    )


def test_a_misspelt_type_gets_a_hint() -> None:
    with pytest.raises(UnknownInstruction, match="Did you mean USER_CREATE") as caught:
        instruction_type("USR_CREATE")

    assert "USER_CREATE" in caught.value.details["known"]


@pytest.mark.parametrize("name", [None, 5, [], {}, "", "user_create\x00", "\ud800", "X" * 10_000])
def test_what_is_no_type_is_refused_without_being_repeated_at_length(name: object) -> None:
    with pytest.raises(UnknownInstruction) as caught:
        instruction_type(name)

    caught.value.message.encode("utf-8")
    assert len(caught.value.message) < 300


@pytest.fixture(scope="module")
def registered_tasks() -> set[str]:
    """The names of the tasks that a worker knows, asked of a process that has loaded them."""
    program = (
        "import json; from llmchatlinker import app; app.loader.import_default_modules();"
        "print(json.dumps(sorted(app.tasks)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return set(json.loads(done.stdout))


def test_a_worker_has_a_task_for_every_type_and_both_stages(registered_tasks: set[str]) -> None:
    ours = {name for name in registered_tasks if name.startswith("llmchatlinker.")}

    assert ours == {item.task_name for item in INSTRUCTION_SET.values()} | {DECODE_TASK, STORE_TASK}
