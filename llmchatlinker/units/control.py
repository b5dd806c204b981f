"""The Control Unit: decode. Validates an instruction's data and resolves names to ids.

What it hands on is complete: the unit that executes reads ids only.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.errors import InvalidData, NotFound
from llmchatlinker.instruction_data.chat import ChatCreate, ChatUpdate
from llmchatlinker.instruction_data.fields import DECODED, USER_FIELDS, Data, describe
from llmchatlinker.instruction_data.llm import (
    LLMAdd,
    LLMProviderAdd,
    LLMProviderUpdate,
    LLMReference,
    LLMResponseGenerate,
    LLMResponseRegenerate,
    LLMUpdate,
)
from llmchatlinker.instruction_data.user import UserGet
from llmchatlinker.providers.reach import OutOfReach, check_endpoint
from llmchatlinker.settings import get_settings
from llmchatlinker.units.headers import sealed
from llmchatlinker.units.lookups import (
    get_llm,
    get_message,
    llm_id_by_name,
    provider_id_by_name,
    user_ids_by_name,
)

SomeData = TypeVar("SomeData", bound=Data)


def parse(model: type[SomeData], raw: dict[str, Any], *, decoded: bool = False) -> SomeData:
    """``raw`` as the instruction type's data; null is the same as left out."""
    given = {key: value for key, value in raw.items() if value is not None}
    try:
        return model.model_validate(given, context=DECODED if decoded else None)
    except ValidationError as error:
        raise describe(error) from None


#: Data that may name what has to be looked up, or carry a secret that is to be encrypted.
_INCOMPLETE = (
    UserGet,
    ChatCreate,
    ChatUpdate,
    LLMProviderAdd,
    LLMProviderUpdate,
    LLMAdd,
    LLMUpdate,
    LLMResponseGenerate,
    LLMResponseRegenerate,
)


def is_complete(model: type[Data]) -> bool:
    """Whether such data can be executed as it was submitted, once it is known to be valid."""
    return not issubclass(model, _INCOMPLETE)


def looks_up(data: Data) -> bool:
    """Whether decoding takes more than the data itself."""
    if isinstance(data, UserGet):
        return data.username is not None
    return isinstance(data, _INCOMPLETE)


def resolve(session: Session, data: Data) -> Data:
    """``data`` with every name replaced by the id behind it; NotFound for a name of nobody.

    An API key and a header's value are replaced by their tokens: from here on nothing has them in
    the clear.
    """
    data = sealed(data)
    _check_reach(getattr(data, "api_endpoint", None))
    match data:
        case LLMProviderAdd(api_key=str(key)) | LLMProviderUpdate(api_key=str(key)) if key:
            token = secrets.encrypt(key, get_settings()).decode("ascii")
            return data.model_copy(update={"api_key": token})
        case UserGet(username=str(username)):
            found = user_ids_by_name(session, [username], "username")
            return data.model_copy(update={"user_id": found[username], "username": None})
        case ChatCreate():
            return _resolve_members(session, data)
        case ChatUpdate():
            return _resolve_changes(session, data)
        case LLMAdd(provider_id=None, provider_name=str(name)):
            found_id = provider_id_by_name(session, name)
            return data.model_copy(update={"provider_id": found_id, "provider_name": None})
        case LLMResponseGenerate():
            return _resolve_fallbacks(session, _resolve_llm(session, data))
    return data


def _check_reach(api_endpoint: str | None) -> None:
    if api_endpoint is None:
        return
    try:
        check_endpoint(api_endpoint)
    except OutOfReach as error:
        raise _disagrees("api_endpoint", str(error)) from None


def _resolve_members(session: Session, data: ChatCreate) -> ChatCreate:
    ids = list(data.user_ids or [])
    if data.usernames:
        ids += user_ids_by_name(session, data.usernames, "usernames").values()
    return data.model_copy(update={"user_ids": list(dict.fromkeys(ids)), "usernames": None})


def _resolve_changes(session: Session, data: ChatUpdate) -> ChatUpdate:
    changes: dict[str, Any] = {}
    for field in ("add_users", "remove_users"):
        references: list[int | str] | None = getattr(data, field)
        if references:
            names = [item for item in references if isinstance(item, str)]
            by_name = user_ids_by_name(session, names, field) if names else {}
            changes[field] = [by_name[i] if isinstance(i, str) else i for i in references]
    return data.model_copy(update=changes)


def _resolve_llm(session: Session, data: LLMResponseGenerate) -> LLMResponseGenerate:
    provider_id = data.provider_id
    if data.provider_name is not None:
        named = provider_id_by_name(session, data.provider_name)
        if provider_id is not None and provider_id != named:
            raise _disagrees("provider_name", f"names provider {named}, not {provider_id}")
        provider_id = named
    llm_id = data.llm_id
    if llm_id is None:
        assert provider_id is not None and data.llm_name is not None
        llm_id = llm_id_by_name(session, provider_id, data.llm_name)
    else:
        llm = get_llm(session, llm_id)
        if provider_id is not None and llm.provider_id != provider_id:
            raise _disagrees(
                "provider_id", f"is {provider_id}, but LLM {llm_id} is of {llm.provider_id}"
            )
        if data.llm_name is not None and llm.llm_name != data.llm_name:
            raise _disagrees("llm_name", f"is not the name of LLM {llm_id}")
    return data.model_copy(
        update={"llm_id": llm_id, "provider_id": None, "provider_name": None, "llm_name": None}
    )


def _resolve_fallbacks(session: Session, data: LLMResponseGenerate) -> LLMResponseGenerate:
    """The ids of the LLMs to fall back on; NotFound says which of them is not there."""
    if not data.fallbacks:
        return data
    found = []
    for number, item in enumerate(data.fallbacks):
        try:
            if item.llm_id is not None:
                llm_id = get_llm(session, item.llm_id).id
            else:
                assert item.provider_name is not None and item.llm_name is not None
                provider_id = provider_id_by_name(session, item.provider_name)
                llm_id = llm_id_by_name(session, provider_id, item.llm_name)
        except NotFound as error:
            field = f"fallbacks.{number}.{error.details['field']}"
            raise NotFound(error.message, error.details | {"field": field}) from None
        found.append(LLMReference(llm_id=llm_id))
    return data.model_copy(update={"fallbacks": found})


def _disagrees(field: str, problem: str) -> InvalidData:
    return InvalidData(f"{field} {problem}.", {"fields": [{"field": field, "problem": problem}]})


def chat_of(session: Session | None, data: Data) -> int | None:
    """The chat that an instruction is about, if any; the session is for what ``looks_up``."""
    if isinstance(data, LLMResponseRegenerate):
        assert session is not None
        return get_message(session, data.message_id).chat_id
    chat_id: int | None = getattr(data, "chat_id", None)
    return chat_id


def users_of(session: Session | None, data: Data) -> list[int]:
    """The users that an instruction carries; a regeneration carries its question's user."""
    ids: list[int] = []
    for field in USER_FIELDS:
        value = getattr(data, field, None)
        ids += [value] if isinstance(value, int) else value or []
    if isinstance(data, LLMResponseRegenerate):
        assert session is not None
        asked_by = get_message(session, data.message_id).user_id
        ids += [] if asked_by is None else [asked_by]
    return list(dict.fromkeys(ids))
