"""Rotating the keys of API keys at rest."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from llmchatlinker import secrets
from llmchatlinker.db.models import Provider
from llmchatlinker.db.sessions import database
from llmchatlinker.settings import get_settings


def rotate_api_keys() -> int:
    """Encrypt every stored API key anew with the first key; returns how many there are."""
    settings = get_settings()

    def work(session: Session) -> int:
        query = select(Provider).where(Provider.api_key.is_not(None)).with_for_update()
        providers = list(session.scalars(query))
        for provider in providers:
            assert provider.api_key is not None
            provider.api_key = secrets.rotate(provider.api_key, settings)
        return len(providers)

    return database().run(work, patience=settings.client_patience)
