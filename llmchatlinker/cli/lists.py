"""What there is: ``users``, ``chats``, ``providers``, ``llms``. Each is an instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.output import data_of, print_json, print_table, wants_json

USERS = ("user_id", "username", "display_name", "instruction_recording", "created_at")
CHATS = ("chat_id", "title", "users", "turn_policy", "updated_at")
PROVIDERS = ("provider_id", "name", "kind", "api_endpoint", "has_api_key")
LLMS = ("llm_id", "llm_name", "provider_id", "settings")


def _paged(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every list."""
    for option in (
        click.option("--all", "everything", is_flag=True, help="All pages."),
        click.option("--after", type=int, help="Only those with greater ids: the next page."),
        click.option("--limit", type=click.IntRange(1, 1000), default=100, help="So many a page."),
    ):
        function = option(function)
    return function


@command(example="llmchatlinker users")
@_paged
def users(**page: Any) -> None:
    """Users."""
    _list("USER_LIST", "users", USERS, page)


@command(example="llmchatlinker chats --user 1")
@click.option("--user", "user_id", type=int, help="Only the chats of the user with this id.")
@_paged
def chats(user_id: int | None, **page: Any) -> None:
    """Chats and their members."""
    if user_id is None:
        _list("CHAT_LIST", "chats", CHATS, page)
    else:
        _list("CHAT_LIST_BY_USER", "chats", CHATS, page, user_id=user_id)


@command(example="llmchatlinker providers")
@_paged
def providers(**page: Any) -> None:
    """Providers; of their API keys only whether there is one."""
    _list("LLM_PROVIDER_LIST", "providers", PROVIDERS, page)


@command(example="llmchatlinker llms --provider 1")
@click.option("--provider", "provider_id", type=int, help="Only those of this provider's id.")
@_paged
def llms(provider_id: int | None, **page: Any) -> None:
    """LLMs."""
    if provider_id is None:
        _list("LLM_LIST", "llms", LLMS, page)
    else:
        _list("LLM_LIST_BY_PROVIDER", "llms", LLMS, page, provider_id=provider_id)


def _list(
    type_name: str, name: str, columns: Sequence[str], page: dict[str, Any], **data: Any
) -> None:
    """Ask, page after page where all are wanted, and print."""
    from llmchatlinker.client import LLMChatLinkerClient

    found: list[dict[str, Any]] = []
    following = None
    for envelope in LLMChatLinkerClient().pages(
        type_name, limit=page["limit"], after=page["after"], **data
    ):
        got = data_of(envelope)
        found += got[name]
        following = got.get("next")
        if not page["everything"]:
            break
    if wants_json():
        print_json({name: found, "next": following})
        return
    if not found:
        click.echo(f"There are no {name}{' behind that one' if page['after'] else ''}.")
        return
    rows = [[_shown(item[column]) for column in columns] for item in found]
    print_table([column.replace("_", " ") for column in columns], rows)
    if following is not None:
        click.echo(f"There are more: --after {following}, or --all.", err=True)


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(user["username"] for user in value)
    return value or None if isinstance(value, dict) else value
