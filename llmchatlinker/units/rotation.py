"""Rotating the keys of API keys, and of headers, at rest."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import LLM, Provider
from llmchatlinker.db.sessions import database
from llmchatlinker.settings import get_settings
from llmchatlinker.units.headers import resealed


def rotate_api_keys() -> int:
    """Encrypt every stored API key and header anew with the first key; returns how many keys."""
    settings = get_settings()

    def work(session: Session) -> int:
        count = 0
        for provider in session.scalars(select(Provider).with_for_update()):
            provider.settings = resealed(provider.settings)
            if provider.api_key is not None:
                provider.api_key = secrets.rotate(provider.api_key, settings)
                count += 1
        for llm in session.scalars(select(LLM).with_for_update()):
            llm.settings = resealed(llm.settings)
        return count

    return database().run(work, patience=settings.client_patience)
