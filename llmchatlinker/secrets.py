"""API keys at rest: Fernet tokens under the keys of ``LLMCHATLINKER_SECRET_KEYS``.

The first key encrypts, all decrypt: to rotate, put a new key in front, run
``llmchatlinker keys rotate``, then take the old one away.
"""

from __future__ import annotations

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from llmchatlinker.errors import ConfigurationError
from llmchatlinker.settings import Settings


def generate_key() -> str:
    """A new key for ``LLMCHATLINKER_SECRET_KEYS``."""
    return Fernet.generate_key().decode("ascii")


def _keys(settings: Settings) -> MultiFernet:
    keys = [key.strip() for key in settings.secret_keys.split(",") if key.strip()]
    if not keys:
        raise ConfigurationError(
            "No key to encrypt API keys with: set LLMCHATLINKER_SECRET_KEYS on the workers "
            "(`llmchatlinker keys generate` prints one)."
        )
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        raise ConfigurationError(
            "LLMCHATLINKER_SECRET_KEYS holds something that is no Fernet key "
            "(`llmchatlinker keys generate` prints one)."
        ) from None


def encrypt(secret: str, settings: Settings) -> bytes:
    """A token that only these keys open."""
    return _keys(settings).encrypt(secret.encode("utf-8"))


def decrypt(token: bytes, settings: Settings) -> str:
    """The secret in ``token``; ConfigurationError when none of the keys opens it."""
    try:
        return _keys(settings).decrypt(token).decode("utf-8")
    except InvalidToken:
        raise ConfigurationError(
            "The provider's API key was encrypted with a key that LLMCHATLINKER_SECRET_KEYS no "
            "longer holds: put that key back, or set the API key anew with LLM_PROVIDER_UPDATE."
        ) from None


def rotate(token: bytes, settings: Settings) -> bytes:
    """The same secret under the first key."""
    try:
        return _keys(settings).rotate(token)
    except InvalidToken:
        raise ConfigurationError(
            "A stored API key was encrypted with a key that LLMCHATLINKER_SECRET_KEYS no longer holds."
        ) from None
