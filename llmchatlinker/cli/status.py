"""``llmchatlinker status``: units, workers, queues, the pool, and what waits."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import click

from llmchatlinker.cli.commands import command
from llmchatlinker.cli.failures import DONE, UNREACHABLE
from llmchatlinker.cli.output import console, in_words, print_json, show, wants_json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from llmchatlinker.cli.broker_facts import Queue, Worker
    from llmchatlinker.cli.database_facts import Connections, UnderWay

UNITS = {
    "control": "Control Unit",
    "user": "User Manage Unit",
    "chat": "Chat Manage Unit",
    "llm": "LLM Manage Unit",
    "llm.generate": "LLM Manage Unit",
    "database": "Database Manage Unit",
    "dead_letters": "",
}


@dataclass(slots=True)
class Status:
    """What was found, and in ``problems`` what could not be."""

    queues: list[Queue] = field(default_factory=list)
    workers: list[Worker] | None = None
    under_way: UnderWay | None = None
    connections: Connections | None = None
    problems: list[str] = field(default_factory=list)
    embedded: bool = False
    #: A server could not be reached.
    unreachable: bool = False


@command(example="llmchatlinker status --watch")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(0.5), default=2.0, help="Seconds between two looks."
)
def status(watch: bool, interval: float) -> None:
    """Units and queues, workers, connections, and what is under way.

    The exit code is 3 when PostgreSQL or the broker can't be reached; the rest is shown all the same.
    """
    if not watch:
        found = read()
        if wants_json():
            print_json(_as_json(found))
        else:
            show(_rendered(found))
        sys.exit(UNREACHABLE if found.unreachable else DONE)
    _watch(interval)


def read() -> Status:
    """Look at everything once."""
    from llmchatlinker.cli import broker_facts, database_facts
    from llmchatlinker.errors import LLMChatLinkerError
    from llmchatlinker.settings import get_settings

    found = Status(embedded=get_settings().broker_is_embedded)

    def ask(question: Any) -> Any:
        try:
            return question()
        except LLMChatLinkerError as error:
            remedy = error.details.get("remedy")
            found.unreachable = found.unreachable or error.code == "unavailable"
            found.problems.append(f"{error.message} {remedy}" if remedy else error.message)
            return None

    found.under_way = ask(database_facts.under_way)
    found.connections = ask(database_facts.connections) if found.under_way else None
    if found.embedded and found.under_way is None:
        return found
    queues = ask(broker_facts.queues)
    found.queues = queues or []
    found.workers = ask(broker_facts.workers) if queues is not None else None
    return found


def _watch(interval: float) -> None:
    import json

    from rich.live import Live

    if wants_json():
        while True:
            click.echo(json.dumps(_as_json(read()), default=str))
            time.sleep(interval)
    with Live(_rendered(read()), console=console(), auto_refresh=False, screen=False) as live:
        while True:
            time.sleep(interval)
            live.update(_rendered(read()), refresh=True)


def _as_json(found: Status) -> dict[str, Any]:
    document = asdict(found)
    document.pop("unreachable")
    return document


def _rendered(found: Status) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    if found.queues:
        parts += [_queues(found), Text()]
    if found.workers:
        parts += [_workers(found.workers), Text()]
    elif found.workers is not None:
        parts += [Text("No worker answers: nothing is worked on.", style="red"), Text()]
    parts += [Text(line) for line in _lines(found)]
    parts += [Text(problem, style="red") for problem in found.problems]
    return Group(*parts)


def _queues(found: Status) -> Table:
    table = _table("unit", "queue", "ready", "active", "due", "consumers", "workers")
    for queue in found.queues:
        serving = [worker for worker in found.workers or [] if queue.name in worker.queues]
        known = found.workers is not None
        active = sum(worker.active.get(queue.name, 0) for worker in found.workers or [])
        due = found.under_way.due.get(queue.name, 0) if found.under_way else None
        of_ours = queue.name != "dead_letters"
        forsaken = of_ours and (not serving if known else queue.consumers == 0)
        table.add_row(
            UNITS[queue.name],
            queue.name,
            "no queue" if queue.ready is None else str(queue.ready),
            in_words(active if known and not found.embedded and of_ours else None),
            in_words(due if of_ours else None),
            in_words(queue.consumers),
            in_words(len(serving) if known and of_ours else None),
            style="red" if forsaken else "",
        )
    return table


def _workers(workers: list[Worker]) -> Table:
    table = _table("worker", "queues", "active", "slots", "done", "up for")
    for worker in workers:
        table.add_row(
            in_words(worker.name),
            ", ".join(worker.queues),
            in_words(None if worker.slots is None else sum(worker.active.values())),
            in_words(worker.slots),
            in_words(worker.done),
            in_words(None if worker.uptime is None else duration(worker.uptime)),
        )
    return table


def _lines(found: Status) -> list[str]:
    lines = []
    now = found.under_way
    if now is not None:
        states = ", ".join(f"{count} {state}" for state, count in sorted(now.by_state.items()))
        oldest = "" if now.oldest_open is None else f"; the oldest for {duration(now.oldest_open)}"
        lines.append(f"Open instructions: {now.open}{f' ({states})' if states else ''}{oldest}.")
        if now.oldest_waiting is not None:
            reasons = ", ".join(f"{count} for {why}" for why, count in sorted(now.waiting.items()))
            lines.append(
                f"Waiting: {reasons}; the oldest was submitted {duration(now.oldest_waiting)} ago."
            )
        lines.append(
            f"In the last minute: {now.finished_last_minute} finished, "
            f"{now.failed_last_minute} of them with an error."
        )
    if found.connections is not None:
        lines.append(
            f"PostgreSQL: {found.connections.used} of {found.connections.limit} connections, "
            f"{found.connections.ours} of them LLMChatLinker's."
        )
    return lines


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        words = column in ("unit", "queue", "worker", "queues")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"
