"""``llmchatlinker chat``: the streaming prompt, against the configured servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import Failure, of_code
from llmchatlinker.cli.output import console, data_of

if TYPE_CHECKING:
    from llmchatlinker.client import LLMChatLinkerClient
    from llmchatlinker.embedded.prompt.places import Place
    from llmchatlinker.embedded.prompt.reading import Lines

SHOWN = 10


@command(example="llmchatlinker chat --user ada --llm 1", prints_data=False)
@click.option("--user", "username", help="Who chats, made if need be (default: your login name).")
@click.option("--chat", "chat_id", type=int, help="The chat to go on with (default: a new one).")
@click.option("--title", default="", help="The title of a new chat.")
@click.option("--llm", help="Who answers: an LLM's id, or its name. Needless where there is one.")
@click.option("--endpoint", help="A provider's address, instead: made if need be.")
@click.option("--model", help="The model that it serves.")
@click.option("--api-key", envvar="API_KEY", help="Its API key; better given as API_KEY.")
def chat(
    username: str | None,
    chat_id: int | None,
    title: str,
    llm: str | None,
    endpoint: str | None,
    model: str | None,
    api_key: str | None,
) -> None:
    """Chat with an LLM: answers come as they are written, Ctrl-C stops one, /help says more.

    Without a terminal, each line of the input is a question.
    """
    if endpoint and (llm or not model):
        raise click.UsageError("--endpoint goes with --model, and without --llm.")
    if chat_id is not None and title:
        raise click.UsageError("--title is for a new chat.")

    from llmchatlinker.client import LLMChatLinkerClient
    from llmchatlinker.embedded.prompt.prompt import Prompt
    from llmchatlinker.embedded.prompt.screen import Refused, Screen

    lines = _lines()
    client = LLMChatLinkerClient()
    try:
        if endpoint and model:
            place = _at_an_endpoint(client, username, endpoint, model, api_key)
        else:
            place = _place(client, username, llm)
        if chat_id is not None:
            _check_member(client, place.user_id, chat_id)
        Prompt(Screen(console()), lines, client, place, chat_id=chat_id, title=title).run()
    except Refused as error:
        raise of_code(error.code, error.message) from None


def _lines() -> Lines:
    from llmchatlinker.embedded.prompt.reading import PipedLines, lines

    found = lines()
    if found is not None:
        return found
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise Failure("There is no terminal to chat at.", remedy="Pipe questions in, line by line.")
    return PipedLines(sys.stdin)


def _at_an_endpoint(
    client: LLMChatLinkerClient,
    username: str | None,
    endpoint: str,
    model: str,
    api_key: str | None,
) -> Place:
    from urllib.parse import urlsplit

    from llmchatlinker.embedded.prompt.places import find_place
    from llmchatlinker.embedded.quickstart import Target

    # By its address: a key that was given for one server is never sent to another.
    name = urlsplit(endpoint).netloc.rpartition("@")[2] or "own"
    return find_place(client, Target(name, endpoint, model, api_key), username)


def _place(client: LLMChatLinkerClient, username: str | None, llm: str | None) -> Place:
    from llmchatlinker.embedded.prompt.places import Place, find_user, items

    llms = list(items(client, "llms", "LLM_LIST"))
    fitting = [one for one in llms if llm in (None, str(one["llm_id"]), one["llm_name"])]
    if not fitting:
        raise Failure(
            f"There is no LLM {llm!r}." if llm else "There is no LLM yet.",
            code="not_found",
            remedy="`llmchatlinker llms` lists them; --endpoint and --model make one.",
        )
    if len(fitting) > 1:
        raise Failure(
            f"There are {len(fitting)} LLMs{f' of the name {llm!r}' if llm else ''}: which one?",
            code="invalid_data",
            remedy=f"Say --llm ID: {_names(fitting)}.",
        )
    chosen = fitting[0]
    return Place(find_user(client, username), chosen["llm_id"], chosen["llm_name"])


def _names(llms: list[dict[str, Any]]) -> str:
    from llmchatlinker.embedded.prompt.screen import in_a_line

    named = [f"{one['llm_id']} {in_a_line(one['llm_name'], 40)}" for one in llms[:SHOWN]]
    return ", ".join(named) + (", …" if len(llms) > SHOWN else "")


def _check_member(client: LLMChatLinkerClient, user_id: int, chat_id: int) -> None:
    found = data_of(client.get_chat(chat_id, limit=1))["chat"]
    if user_id not in [user["user_id"] for user in found["users"]]:
        raise of_code(
            "not_a_member",
            f"Chat {chat_id} is not one of this user's.",
            f"`llmchatlinker chats --user {user_id}` lists them; --user names another user.",
        )
