"""The LLM Manage Unit, first half: providers and the LLMs that they serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from llmchatlinker.db.driver import Rows
from llmchatlinker.db.models import LLM, Provider
from llmchatlinker.errors import Conflict, InvalidData
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instruction_data.llm import (
    LLMAdd,
    LLMDelete,
    LLMList,
    LLMListByProvider,
    LLMProviderAdd,
    LLMProviderDelete,
    LLMProviderList,
    LLMProviderUpdate,
    LLMUpdate,
)
from llmchatlinker.units import listing
from llmchatlinker.units.lookups import (
    get_llm,
    get_provider,
    get_provider_to_delete,
    no_provider,
)
from llmchatlinker.units.views import llm_view, provider_view

Result = dict[str, Any]


def add_provider(session: Session, data: LLMProviderAdd) -> Result:
    """LLM_PROVIDER_ADD."""
    provider = Provider(
        name=data.name,
        api_endpoint=data.api_endpoint,
        api_key=_token(data.api_key),
        kind=data.kind,
        settings=_plain(data.settings),
    )
    session.add(provider)
    session.flush()
    return {"provider": provider_view(provider)}


def update_provider(session: Session, data: LLMProviderUpdate) -> Result:
    """LLM_PROVIDER_UPDATE; ``settings`` replaces what was there."""
    provider = get_provider(session, data.provider_id, lock=True)
    if data.name is not None:
        provider.name = data.name
    if data.api_endpoint is not None:
        provider.api_endpoint = data.api_endpoint
    if data.api_key is not None:
        provider.api_key = _token(data.api_key)
    if data.kind is not None:
        provider.kind = data.kind
    if data.settings is not None:
        provider.settings = _plain(data.settings)
    session.flush()
    session.refresh(provider)
    return {"provider": provider_view(provider)}


def _token(api_key: str | None) -> bytes | None:
    return api_key.encode("ascii") if api_key else None  # decode has encrypted it


def _plain(settings: Data | None) -> dict[str, Any]:
    return {} if settings is None else settings.model_dump(exclude_none=True)


def delete_provider(session: Session, data: LLMProviderDelete) -> Result:
    """LLM_PROVIDER_DELETE; with ``force`` its LLMs go too."""
    provider = get_provider_to_delete(session, data.provider_id)
    count = session.scalar(select(func.count()).where(LLM.provider_id == provider.id))
    if count and not data.force:
        raise Conflict(
            f"Provider {provider.id} has {count} LLM(s): delete them first, or use force.",
            {"provider_id": provider.id, "llms": count},
        )
    session.delete(provider)
    session.flush()
    return {}


def list_providers(rows: Rows, data: LLMProviderList) -> Result:
    """LLM_PROVIDER_LIST."""
    providers, following = listing.page(rows, Provider, data)
    return {"providers": [provider_view(item) for item in providers], "next": following}


def add_llm(session: Session, data: LLMAdd) -> Result:
    """LLM_ADD; a provider's name was resolved to its id by decode."""
    assert data.provider_id is not None
    provider = get_provider(session, data.provider_id)
    if data.provider_name is not None and provider.name != data.provider_name:
        problem = f"names another provider than provider_id {provider.id}"
        raise InvalidData(
            f"provider_name {problem}.",
            {"fields": [{"field": "provider_name", "problem": problem}]},
        )
    llm = LLM(provider_id=provider.id, llm_name=data.llm_name, settings=_plain(data.settings))
    session.add(llm)
    session.flush()
    return {"llm": llm_view(llm)}


def update_llm(session: Session, data: LLMUpdate) -> Result:
    """LLM_UPDATE; ``settings`` replaces what was there."""
    llm = get_llm(session, data.llm_id, lock=True)
    if data.llm_name is not None:
        llm.llm_name = data.llm_name
    if data.settings is not None:
        llm.settings = _plain(data.settings)
    session.flush()
    session.refresh(llm)
    return {"llm": llm_view(llm)}


def delete_llm(session: Session, data: LLMDelete) -> Result:
    """LLM_DELETE; its messages stay and keep its name."""
    session.delete(get_llm(session, data.llm_id, lock=True))
    session.flush()
    return {}


def list_llms(rows: Rows, data: LLMList) -> Result:
    """LLM_LIST."""
    return _listed(*listing.page(rows, LLM, data))


def list_llms_by_provider(rows: Rows, data: LLMListByProvider) -> Result:
    """LLM_LIST_BY_PROVIDER."""
    provider = listing.row(rows, Provider, data.provider_id, no_provider(data.provider_id))
    of_it = "provider_id = %(provider_id)s"
    return _listed(*listing.page(rows, LLM, data, of_it, provider_id=provider.id))


def _listed(llms: Sequence[LLM], following: int | None) -> Result:
    return {"llms": [llm_view(llm) for llm in llms], "next": following}
