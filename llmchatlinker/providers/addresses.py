"""Where an endpoint of a provider is, from ``api_endpoint``: a base, or the full URL of a chat.

A query (``?api-version=…``) stays at the end.
"""

from __future__ import annotations


def from_base(api_endpoint: str, version: str, chat: str, path: str) -> str:
    """For bases that have their version in them, as OpenAI's ``https://host/v1`` does.

    A host alone gets ``version``; any other path is taken as it is.
    """
    base, query = _split(api_endpoint, chat)
    _, _, rest = base.partition("://")
    return (base if "/" in rest else base + version) + path + query


def from_root(api_endpoint: str, version: str, chat: str, path: str) -> str:
    """For bases that may leave their version out, as ``https://host`` and ``https://host/proxy`` do."""
    base, query = _split(api_endpoint, chat)
    return base.removesuffix(version).rstrip("/") + version + path + query


def _split(api_endpoint: str, chat: str) -> tuple[str, str]:
    address, mark, query = api_endpoint.partition("#")[0].partition("?")
    return address.rstrip("/").removesuffix(chat).rstrip("/"), mark + query
