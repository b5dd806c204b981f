"""The instruction set: one table. Type → unit, data, handler, and what its envelope says.

``from llmchatlinker.instructions import USER_CREATE; USER_CREATE.delay(username="ada")`` submits one
and returns Celery's ``AsyncResult``. To add a type: its data in ``instruction_data/``, its handler in
``units/``, a row here; the worker registers the task by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from llmchatlinker.errors import UnknownInstruction
from llmchatlinker.instruction_data import chat as chat_data
from llmchatlinker.instruction_data import database as database_data
from llmchatlinker.instruction_data import llm as llm_data
from llmchatlinker.instruction_data import user as user_data
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.units import (
    cancelling,
    chat,
    data_rights,
    database,
    discovery,
    erasing,
    generation,
    provider,
    user,
)
from llmchatlinker.units.handling import ProviderHandler, Reader

if TYPE_CHECKING:
    from llmchatlinker.results.result import InstructionResult

Handler = Callable[..., dict[str, Any]] | ProviderHandler


class Unit(StrEnum):
    """The units that execute; the Control Unit decodes for all of them."""

    USER = "user"
    CHAT = "chat"
    LLM = "llm"
    DATABASE = "database"


@dataclass(frozen=True, slots=True)
class InstructionType:
    """An opcode. ``takes_turn``: one at a time per chat, in the order of submission."""

    name: str
    unit: Unit
    data: type[Data]
    handler: Handler
    done: str
    takes_turn: bool = False
    #: It ends another instruction, and does so when it is submitted.
    cancels: bool = False
    #: Its deadline is a generation's, unless it says otherwise.
    takes_long: bool = False

    @property
    def task_name(self) -> str:
        """The Celery task that executes it."""
        return f"llmchatlinker.{self.unit}.{self.name.lower()}"

    @property
    def queue(self) -> str:
        """The queue that its execution goes to: generations have one of their own."""
        return "llm.generate" if self.takes_turn else str(self.unit)

    def delay(self, **data: Any) -> InstructionResult:
        """Submit with this data; the same as ``apply_async(kwargs=data)``."""
        return self.apply_async(kwargs=data)

    def apply_async(
        self,
        args: None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        deadline: float | None = None,
        expires: float | None = None,
        idempotency_key: str | None = None,
    ) -> InstructionResult:
        """Submit; of Celery's options those that make sense for an instruction.

        ``deadline`` (or ``expires``, Celery's word for it): seconds until the instruction ends with
        ``deadline_exceeded``. Raises Unavailable when PostgreSQL or the broker can't be reached, and
        InvalidData for what can't even be stored; wrong data is found by decode and is in ``get()``.
        """
        from llmchatlinker.orchestrator import submit
        from llmchatlinker.results.result import InstructionResult

        seconds = deadline if deadline is not None else expires
        return InstructionResult(
            submit(self.name, kwargs or {}, deadline=seconds, idempotency_key=idempotency_key)
        )


def _unit(unit: Unit) -> Callable[..., InstructionType]:
    def make(
        name: str, data: type[Data], handler: Handler, done: str, **more: Any
    ) -> InstructionType:
        return InstructionType(name, unit, data, handler, done, **more)

    return make


_user, _chat, _llm, _database = (_unit(u) for u in (Unit.USER, Unit.CHAT, Unit.LLM, Unit.DATABASE))

# fmt: off
USER_CREATE = _user("USER_CREATE", user_data.UserCreate, user.create, "User created.")
USER_UPDATE = _user("USER_UPDATE", user_data.UserUpdate, user.update, "User updated.")
USER_DELETE = _user("USER_DELETE", user_data.UserReference, user.delete_user, "User deleted.")
USER_LIST = _user("USER_LIST", user_data.UserList, Reader(user.list_users), "Users listed.")
USER_GET = _user("USER_GET", user_data.UserGet, Reader(user.get), "User found.")
USER_INSTRUCTION_RECORDING_ENABLE = _user("USER_INSTRUCTION_RECORDING_ENABLE", user_data.UserReference, user.enable_recording, "Recording is on.")
USER_INSTRUCTION_RECORDING_DISABLE = _user("USER_INSTRUCTION_RECORDING_DISABLE", user_data.UserReference, user.disable_recording, "Recording is off.")
USER_INSTRUCTION_RECORDS_DELETE = _user("USER_INSTRUCTION_RECORDS_DELETE", user_data.UserReference, user.delete_records, "Records deleted.")
USER_INSTRUCTION_RECORDING_LIST = _user("USER_INSTRUCTION_RECORDING_LIST", user_data.UserRecords, Reader(user.list_records), "Records listed.")

CHAT_CREATE = _chat("CHAT_CREATE", chat_data.ChatCreate, chat.create, "Chat created.")
CHAT_UPDATE = _chat("CHAT_UPDATE", chat_data.ChatUpdate, chat.update, "Chat updated.")
CHAT_DELETE = _chat("CHAT_DELETE", chat_data.ChatReference, chat.delete_chat, "Chat deleted.")
CHAT_LOAD = _chat("CHAT_LOAD", chat_data.ChatLoad, chat.load, "Chat loaded.")
CHAT_LIST = _chat("CHAT_LIST", chat_data.ChatList, Reader(chat.list_chats), "Chats listed.")
CHAT_LIST_BY_USER = _chat("CHAT_LIST_BY_USER", chat_data.ChatListByUser, Reader(chat.list_chats_by_user), "Chats listed.")
CHAT_SEARCH = _chat("CHAT_SEARCH", chat_data.ChatSearch, chat.search, "Messages found.")
CHAT_EXPORT = _chat("CHAT_EXPORT", chat_data.ChatExport, chat.export, "Chat exported.")

LLM_PROVIDER_ADD = _llm("LLM_PROVIDER_ADD", llm_data.LLMProviderAdd, provider.add_provider, "Provider added.")
LLM_PROVIDER_UPDATE = _llm("LLM_PROVIDER_UPDATE", llm_data.LLMProviderUpdate, provider.update_provider, "Provider updated.")
LLM_PROVIDER_DELETE = _llm("LLM_PROVIDER_DELETE", llm_data.LLMProviderDelete, provider.delete_provider, "Provider deleted.")
LLM_PROVIDER_LIST = _llm("LLM_PROVIDER_LIST", llm_data.LLMProviderList, Reader(provider.list_providers), "Providers listed.")
LLM_PROVIDER_DISCOVER = _llm("LLM_PROVIDER_DISCOVER", llm_data.LLMProviderDiscover, discovery.Discover(), "Models listed.")
LLM_ADD = _llm("LLM_ADD", llm_data.LLMAdd, provider.add_llm, "LLM added.")
LLM_UPDATE = _llm("LLM_UPDATE", llm_data.LLMUpdate, provider.update_llm, "LLM updated.")
LLM_DELETE = _llm("LLM_DELETE", llm_data.LLMDelete, provider.delete_llm, "LLM deleted.")
LLM_LIST = _llm("LLM_LIST", llm_data.LLMList, Reader(provider.list_llms), "LLMs listed.")
LLM_LIST_BY_PROVIDER = _llm("LLM_LIST_BY_PROVIDER", llm_data.LLMListByProvider, Reader(provider.list_llms_by_provider), "LLMs listed.")
LLM_RESPONSE_GENERATE = _llm("LLM_RESPONSE_GENERATE", llm_data.LLMResponseGenerate, generation.Generate(), "Response generated.", takes_turn=True)
LLM_RESPONSE_REGENERATE = _llm("LLM_RESPONSE_REGENERATE", llm_data.LLMResponseRegenerate, generation.Regenerate(), "Response regenerated.", takes_turn=True)
LLM_RESPONSE_CANCEL = _llm("LLM_RESPONSE_CANCEL", llm_data.LLMResponseCancel, cancelling.Cancel(), "Response cancelled.", cancels=True)

INSTRUCTION_GET = _database("INSTRUCTION_GET", database_data.InstructionGet, database.get_instruction, "Instruction found.")
INSTRUCTION_LIST = _database("INSTRUCTION_LIST", database_data.InstructionList, database.list_instructions, "Instructions listed.")
USAGE_LIST = _database("USAGE_LIST", database_data.UsageList, database.list_usage, "Usage listed.")
USER_EXPORT = _database("USER_EXPORT", database_data.UserExport, data_rights.export_user, "User exported.")
USER_ERASE = _database("USER_ERASE", database_data.UserErase, erasing.Erase(), "User erased.", takes_long=True)
# fmt: on

#: The whole set, by name, in the order above.
INSTRUCTION_SET: dict[str, InstructionType] = {
    item.name: item for item in list(globals().values()) if isinstance(item, InstructionType)
}

#: Other names for the same instruction.
ALIASES = {"USER_INSTRUCTION_RECORDS_LIST": USER_INSTRUCTION_RECORDING_LIST.name}
USER_INSTRUCTION_RECORDS_LIST = USER_INSTRUCTION_RECORDING_LIST


def instruction_type(name: object) -> InstructionType:
    """The type of that name or alias; UnknownInstruction otherwise, with the closest names."""
    if isinstance(name, str):
        found = INSTRUCTION_SET.get(ALIASES.get(name, name))
        if found is not None:
            return found
    raise UnknownInstruction(_no_such_type(name), {"known": sorted([*INSTRUCTION_SET, *ALIASES])})


def _no_such_type(name: object) -> str:
    from difflib import get_close_matches

    if not isinstance(name, str):
        return "An instruction's type must be a text such as USER_CREATE."
    close = get_close_matches(name.upper()[:100], [*INSTRUCTION_SET, *ALIASES], n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    shown = name[:100].encode("ascii", "backslashreplace").decode()
    return f"There is no instruction type {shown!r}.{hint}"
