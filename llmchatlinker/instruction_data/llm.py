"""Data of the LLM-related instructions, and the settings of providers and LLMs."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from llmchatlinker.instruction_data.fields import (
    URL_LENGTH,
    Data,
    Id,
    InstructionId,
    MessageId,
    Name,
    Page,
    Text,
    TurnPolicy,
    is_decoded,
)

API_KEY_LENGTH = 2_000


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("must be an http:// or https:// address") from None
    if not parts.hostname:
        raise ValueError("must be an http:// or https:// address")
    scheme, separator, rest = value.partition("://")
    if not separator or scheme.lower() not in ("http", "https") or not rest.split("/")[0]:
        raise ValueError("must be an http:// or https:// address")
    if any(character.isspace() for character in value):
        raise ValueError("must not contain white space")
    if "@" in rest.split("/")[0]:
        raise ValueError("must not contain a user or password; use api_key")
    return value


Endpoint = Annotated[str, Field(min_length=8, max_length=URL_LENGTH), AfterValidator(_http_url)]


def _api_key(value: str, info: ValidationInfo) -> str:
    if is_decoded(info):
        return value  # a Fernet token by now, and longer than what was in it
    if not 0 < len(value) <= API_KEY_LENGTH:
        raise ValueError(f"must have 1 to {API_KEY_LENGTH} characters")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("must be printable ASCII without spaces")
    return value


ApiKey = Annotated[str, AfterValidator(_api_key)]
Kind = Literal["openai", "anthropic", "ollama"]
Seconds = Annotated[float, Field(gt=0, le=3_600)]

#: What LLMChatLinker itself puts into a request, so that nobody else may.
OURS = frozenset({"model", "messages", "stream", "stream_options", "n"})


def _parameters(value: dict[str, Any]) -> dict[str, Any]:
    for name in value:
        if name in OURS:
            raise ValueError(f"{name} is set by LLMChatLinker")
    return value


#: Passed to the provider as they are: temperature, max_tokens, top_p, stop, seed, tools, …
Parameters = Annotated[dict[str, Any], Field(max_length=100), AfterValidator(_parameters)]


class Timeouts(Data):
    """Seconds; what is left out comes from the settings of the process."""

    connect: Seconds | None = None
    read: Seconds | None = None
    total: Seconds | None = None


class ProviderSettings(Data):
    """``settings`` of a provider."""

    timeouts: Timeouts | None = None
    parameters: Parameters | None = None


class Price(Data):
    """What a million tokens cost, in the operator's currency."""

    prompt: Annotated[float, Field(ge=0, lt=1e12)] = 0.0
    completion: Annotated[float, Field(ge=0, lt=1e12)] = 0.0


class LLMSettings(Data):
    """``settings`` of an LLM. ``context_window`` counts tokens, question and answer together."""

    parameters: Parameters | None = None
    context_window: Annotated[int, Field(ge=16, le=100_000_000)] | None = None
    price: Price | None = None


class LLMProviderAdd(Data):
    """LLM_PROVIDER_ADD."""

    name: Name
    api_endpoint: Endpoint
    api_key: ApiKey | None = None
    kind: Kind = "openai"
    settings: ProviderSettings | None = None


class LLMProviderUpdate(Data):
    """LLM_PROVIDER_UPDATE."""

    provider_id: Id
    name: Name | None = None
    api_endpoint: Endpoint | None = None
    api_key: ApiKey | None = None
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


class LLMResponseGenerate(Data):
    """LLM_RESPONSE_GENERATE."""

    user_id: Id
    chat_id: Id
    user_input: Text
    llm_id: Id | None = None
    provider_id: Id | None = None
    provider_name: Name | None = None
    llm_name: Name | None = None
    parameters: Parameters | None = None
    fallbacks: Annotated[list[Any], Field(max_length=20)] | None = None
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
    parameters: Parameters | None = None
    llm_id: Id | None = None


class LLMResponseCancel(Data):
    """LLM_RESPONSE_CANCEL."""

    instruction_id: InstructionId
