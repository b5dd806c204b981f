"""The kinds of provider. One that differs in behaviour is a module; here is its row."""

from __future__ import annotations

from llmchatlinker.providers.anthropic import Anthropic
from llmchatlinker.providers.base import Wire
from llmchatlinker.providers.ollama import Ollama
from llmchatlinker.providers.openai import OpenAI

WIRES: dict[str, Wire] = {"openai": OpenAI(), "anthropic": Anthropic(), "ollama": Ollama()}


def wire(kind: str) -> Wire:
    """The wire of a kind."""
    return WIRES[kind]
