"""Headers of providers and LLMs, whose values may be secrets: sealed as API keys are.

decode seals them, so they are in no row in the clear once an instruction was looked at; only the
names are ever shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from llmchatlinker import secrets
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.settings import get_settings

SomeData = TypeVar("SomeData", bound=Data)


def sealed(data: SomeData) -> SomeData:
    """``data`` with the values of its settings' headers encrypted; ConfigurationError without keys."""
    settings = getattr(data, "settings", None)
    headers: dict[str, str] | None = getattr(settings, "headers", None)
    if settings is None or not headers:
        return data
    keys = get_settings()
    tokens = {name: secrets.encrypt(value, keys).decode("ascii") for name, value in headers.items()}
    return data.model_copy(update={"settings": settings.model_copy(update={"headers": tokens})})


def opened(headers: Mapping[str, str]) -> dict[str, str]:
    """Names and values in the clear; ConfigurationError where none of the keys opens one."""
    keys = get_settings()
    return {name: secrets.decrypt(token.encode("ascii"), keys) for name, token in headers.items()}


def merged(first: Mapping[str, str] | None, second: Mapping[str, str] | None) -> dict[str, str]:
    """Both; of a header that is in both, however it is written, the second one's."""
    nearer = dict(second or {})
    names = {name.lower() for name in nearer}
    return {n: value for n, value in (first or {}).items() if n.lower() not in names} | nearer


def resealed(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` with their headers under the first key."""
    headers = settings.get("headers")
    if not headers:
        return settings
    keys = get_settings()
    tokens = {
        name: secrets.rotate(token.encode("ascii"), keys).decode("ascii")
        for name, token in headers.items()
    }
    return settings | {"headers": tokens}


def shown(settings: dict[str, Any]) -> dict[str, Any]:
    """``settings`` as clients see them: of headers the names."""
    headers = settings.get("headers")
    return settings if headers is None else settings | {"headers": sorted(headers)}
