"""``llmchatlinker doctor``: what is wrong, and how to mend it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.checks import Check, State, checked, fail, ok, warn
from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import DONE, FAILED
from llmchatlinker.cli.output import console, data_of, in_words, print_json, show, wants_json

if TYPE_CHECKING:
    from llmchatlinker.client import LLMChatLinkerClient

COLOURS: dict[State, str] = {"ok": "green", "warn": "yellow", "fail": "bold red"}
#: Seconds for a provider to list its models, and providers that are asked at once.
PROVIDER_SECONDS = 20.0
AT_ONCE = 8


@command(example="llmchatlinker doctor")
@click.option("--no-providers", is_flag=True, help="Don't ask the providers.")
def doctor(no_providers: bool) -> None:
    """Check settings, broker, workers, database, keys, clocks and providers; say how to mend each.

    Providers are asked by the workers, as for an answer, but for a list of their models only. The
    exit code is 1 when a check fails; warnings don't count.
    """
    with console(stderr=True).status("Checking"):
        done = list(_checks(with_providers=not no_providers))
    if wants_json():
        print_json({"ok": not _count(done, "fail"), "checks": [asdict(check) for check in done]})
    else:
        show(_rendered(done))
    sys.exit(FAILED if _count(done, "fail") else DONE)


def _checks(*, with_providers: bool) -> Iterator[Check]:
    """Each group, as far as what it stands on is there."""
    settings = list(checked("settings", _settings))
    yield from settings
    if _count(settings, "fail"):
        return
    from llmchatlinker.cli import broker_checks, database_checks

    server = list(checked("database", database_checks.server))
    yield from server
    database = not _count(server, "fail")
    schema = list(checked("migrations", database_checks.schema)) if database else []
    yield from schema
    tables = database and not _count(schema, "fail")
    if tables:
        yield from checked("connections", database_checks.connections)
        yield from checked("deadlines", database_checks.sweeper)
        yield from checked("secret keys", database_checks.keys)
        yield from checked("clocks", database_checks.clocks)
    broker = list(checked("broker", broker_checks.broker))
    yield from broker
    works = tables and not _count(broker[:1], "fail")
    if works:
        workers = list(checked("workers", broker_checks.workers))
        yield from workers
        if with_providers and not _count(workers, "fail"):
            yield from checked("providers", _providers)
    yield from checked("local model", database_checks.local_model)


def _settings() -> Iterable[Check]:
    from llmchatlinker.settings import get_settings

    get_settings()
    return [ok("settings", "read")]


def _providers() -> Iterator[Check]:
    """Each provider is reached and takes its key, and serves the LLMs that are its own."""
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    providers = _all(client, "providers", "LLM_PROVIDER_LIST")
    if not providers:
        yield ok("providers", "none yet")
        return
    llms = _all(client, "llms", "LLM_LIST")

    def look(provider: dict[str, Any]) -> Check:
        of_it = [llm for llm in llms if llm["provider_id"] == provider["provider_id"]]
        return _provider(client, provider, [llm["llm_name"] for llm in of_it])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(look, providers)


def _provider(client: LLMChatLinkerClient, provider: dict[str, Any], llms: list[str]) -> Check:
    name = f"provider {in_words(provider['name'])}"
    envelope = client.discover_llms(provider["provider_id"], deadline=PROVIDER_SECONDS)
    if envelope["status"] == "error":
        status = envelope["error"]["details"].get("http_status")
        remedy = f"Check that it runs at {provider['api_endpoint']}, as seen from the workers."
        set_key = f"LLM_PROVIDER_UPDATE, provider_id {provider['provider_id']}."
        if status in (401, 403):
            remedy = f"Set its API key: {set_key}"
        elif envelope["error"]["code"] == "configuration":
            remedy = (
                f"Mend that setting of the workers; what no key opens can be set anew: {set_key}"
            )
        return fail(name, envelope["message"], remedy)
    served = envelope["data"]["models"]
    unknown = [llm for llm in llms if llm not in served]
    if unknown and served:
        return warn(
            name,
            f"answers, and does not list {', '.join(unknown)}",
            f"`llmchatlinker send LLM_PROVIDER_DISCOVER provider_id={provider['provider_id']}` shows "
            "what it serves.",
        )
    return ok(name, f"answers; it lists {len(served)} models")


def _all(client: LLMChatLinkerClient, name: str, type_name: str) -> list[dict[str, Any]]:
    """A whole list. Raises Failure."""
    return [item for page in client.pages(type_name) for item in data_of(page)[name]]


def _rendered(done: list[Check]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for name in ("state", "check", "found"):
        table.add_column(name, overflow="fold", no_wrap=name != "found")
    for check in done:
        colour = COLOURS[check.state]
        table.add_row(Text(check.state, style=colour), in_words(check.name), in_words(check.found))
        if check.remedy:
            table.add_row("", "", Text(f"What to do: {in_words(check.remedy)}", style=colour))
    counts = [f"{_count(done, state)} {word}" for state, word in _WORDS.items()]
    table.add_row("", "", "")
    table.add_row("", "", f"{', '.join(counts)}.")
    return table


_WORDS: dict[State, str] = {"ok": "ok", "warn": "to look at", "fail": "failed"}


def _count(done: Iterable[Check], state: State) -> int:
    return sum(check.state == state for check in done)
