"""Who asks, and which LLM answers: the rows that a prompt needs before its first question."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.embedded.prompt.screen import Refused
from llmchatlinker.embedded.quickstart import Target
from llmchatlinker.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Place:
    """A user and an LLM."""

    user_id: int
    llm_id: int
    llm_name: str


def data_of(envelope: Envelope) -> dict[str, Any]:
    """What a success carries. Raises Refused for an error."""
    if envelope["status"] == "error":
        raise Refused(envelope["message"], envelope["error"]["code"])
    return envelope["data"]


def items(
    client: LLMChatLinkerClient, name: str, type_name: str, **arguments: Any
) -> Iterator[dict[str, Any]]:
    """Every item of a list, page after page; ``name``: the list's in the result."""
    for envelope in client.pages(type_name, **arguments):
        yield from data_of(envelope)[name]


def find_place(client: LLMChatLinkerClient, target: Target, username: str | None = None) -> Place:
    """The person at this machine and the LLM that it was started with, made where they are missing."""
    return Place(find_user(client, username), _llm(client, target), target.llm_name)


def find_user(client: LLMChatLinkerClient, username: str | None = None) -> int:
    """The id of the user of that name, made if need be; None: whoever is logged in."""
    name = username or getpass.getuser()
    envelope = client.get_user(username=name)
    if envelope["status"] == "error":
        envelope = client.create_user(name)
    user_id: int = data_of(envelope)["user"]["user_id"]
    return user_id


def _llm(client: LLMChatLinkerClient, target: Target) -> int:
    """The target's provider and LLM; the local server has another port at each start."""
    provider_id: int | None = None
    for provider in items(client, "providers", "LLM_PROVIDER_LIST"):
        if provider["name"] == target.provider_name:
            provider_id = provider["provider_id"]
    where: dict[str, Any] = {"api_endpoint": target.api_endpoint, "api_key": target.api_key}
    if provider_id is None:
        added = data_of(client.add_llm_provider(target.provider_name, **where))
        provider_id = added["provider"]["provider_id"]
    else:
        data_of(client.update_llm_provider(provider_id, **where))
    for llm in items(client, "llms", "LLM_LIST_BY_PROVIDER", provider_id=provider_id):
        if llm["llm_name"] == target.llm_name:
            found: int = llm["llm_id"]
            return found
    made: int = data_of(client.add_llm(provider_id, target.llm_name))["llm"]["llm_id"]
    return made
