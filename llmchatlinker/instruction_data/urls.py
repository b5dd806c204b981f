"""Addresses that others connect to."""

from __future__ import annotations

from urllib.parse import urlsplit


def http_url(value: str) -> str:
    """``value`` if it is an http(s) address without a user, a password or white space."""
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
