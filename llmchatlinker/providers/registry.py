"""The kinds of provider. One that differs in behaviour is a module; here is its row."""

from __future__ import annotations

from llmchatlinker.errors import NotImplementedYet
from llmchatlinker.providers.base import Wire
from llmchatlinker.providers.openai import OpenAI

WIRES: dict[str, Wire] = {"openai": OpenAI()}


def wire(kind: str) -> Wire:
    """The wire of a kind; NotImplementedYet for one that nobody has written."""
    try:
        return WIRES[kind]
    except KeyError:
        raise NotImplementedYet(
            f"Providers of kind {kind!r} are not implemented yet; most speak OpenAI's API too.",
            {"field": "kind", "value": kind},
        ) from None
