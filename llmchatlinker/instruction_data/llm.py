"""Data of the LLM-related instructions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, model_validator

from llmchatlinker.instruction_data.content import UserInput
from llmchatlinker.instruction_data.fields import (
    URL_LENGTH,
    Data,
    Id,
    InstructionId,
    MessageId,
    Name,
    Page,
    TurnPolicy,
    is_decoded,
)
from llmchatlinker.instruction_data.provider_settings import (
    LLMSettings,
    Parameters,
    ProviderSettings,
)
from llmchatlinker.instruction_data.urls import http_url

API_KEY_LENGTH = 2_000
FALLBACKS = 20

Endpoint = Annotated[str, Field(min_length=8, max_length=URL_LENGTH), AfterValidator(http_url)]


def _api_key(value: str, info: ValidationInfo) -> str:
    if is_decoded(info):
        return value  # a Fernet token by now, and longer than what was in it
    if not 0 < len(value) <= API_KEY_LENGTH:
        raise ValueError(f"must have 1 to {API_KEY_LENGTH} characters")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be printable ASCII without spaces")
    return value


def _api_key_or_none(value: str, info: ValidationInfo) -> str:
    return _api_key(value, info) if value else value


ApiKey = Annotated[str, AfterValidator(_api_key)]
#: The empty one takes away the one that is there: null is the same as leaving it out.
ApiKeyOrNone = Annotated[str, AfterValidator(_api_key_or_none)]
Kind = Literal["openai", "anthropic", "ollama"]


class LLMProviderAdd(Data):
    """LLM_PROVIDER_ADD."""

    name: Name
    api_endpoint: Endpoint
    api_key: ApiKey | None = Field(default=None, repr=False)
    kind: Kind = "openai"
    settings: ProviderSettings | None = None


class LLMProviderUpdate(Data):
    """LLM_PROVIDER_UPDATE."""

    provider_id: Id
    name: Name | None = None
    api_endpoint: Endpoint | None = None
    api_key: ApiKeyOrNone | None = Field(default=None, repr=False)
    kind: Kind | None = None
    settings: ProviderSettings | None = None


class LLMProviderDelete(Data):
    """LLM_PROVIDER_DELETE."""

    provider_id: Id
    force: bool = False


class LLMProviderList(Page):
    """LLM_PROVIDER_LIST."""


class LLMProviderDiscover(Data):
    """LLM_PROVIDER_DISCOVER."""

    provider_id: Id


class LLMAdd(Data):
    """LLM_ADD."""

    provider_name: Name | None = None
    provider_id: Id | None = None
    llm_name: Name
    settings: LLMSettings | None = None

    @model_validator(mode="after")
    def _a_provider(self) -> LLMAdd:
        if self.provider_id is None and self.provider_name is None:
            raise ValueError("takes provider_id or provider_name")
        return self


class LLMUpdate(Data):
    """LLM_UPDATE."""

    llm_id: Id
    llm_name: Name | None = None
    settings: LLMSettings | None = None


class LLMDelete(Data):
    """LLM_DELETE."""

    llm_id: Id


class LLMList(Page):
    """LLM_LIST."""


class LLMListByProvider(Page):
    """LLM_LIST_BY_PROVIDER."""

    provider_id: Id


class LLMReference(Data):
    """An LLM by its id, or by its provider's name and its own; decode leaves the id alone."""

    llm_id: Id | None = None
    provider_name: Name | None = None
    llm_name: Name | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LLMReference:
        named = (self.provider_name is not None, self.llm_name is not None)
        if named != ((self.llm_id is None),) * 2:
            raise ValueError("takes llm_id, or provider_name and llm_name")
        return self


def _from_id(value: Any) -> Any:
    return {"llm_id": value} if isinstance(value, int) else value


#: An LLM to try where those before it failed; its id alone will do.
Fallback = Annotated[LLMReference, BeforeValidator(_from_id)]


class LLMResponseGenerate(Data):
    """LLM_RESPONSE_GENERATE: ``fallbacks`` are tried in their order where the LLM fails."""

    user_id: Id
    chat_id: Id
    user_input: UserInput = Field(repr=False)
    llm_id: Id | None = None
    provider_id: Id | None = None
    provider_name: Name | None = None
    llm_name: Name | None = None
    parameters: Parameters | None = Field(default=None, repr=False)
    fallbacks: Annotated[list[Fallback], Field(max_length=FALLBACKS)] | None = None
    turn_policy: TurnPolicy | None = None
    parent_message_id: MessageId | None = None

    @model_validator(mode="after")
    def _an_llm(self) -> LLMResponseGenerate:
        named = self.llm_name is not None and (
            self.provider_name is not None or self.provider_id is not None
        )
        if self.llm_id is None and not named:
            raise ValueError("takes llm_id, or provider_name and llm_name")
        return self


class LLMResponseRegenerate(Data):
    """LLM_RESPONSE_REGENERATE: by the id of a question or of one of its answers."""

    message_id: MessageId
    user_id: Id | None = None
    parameters: Parameters | None = Field(default=None, repr=False)
    llm_id: Id | None = None


class LLMResponseCancel(Data):
    """LLM_RESPONSE_CANCEL."""

    instruction_id: InstructionId
