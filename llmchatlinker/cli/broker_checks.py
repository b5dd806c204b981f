"""``doctor``: the broker, its queues and policies, and the workers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed

from llmchatlinker import broker_policies
from llmchatlinker.cli import broker_facts
from llmchatlinker.cli.checks import Check, checked, fail, ok, warn
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.settings import get_settings, without_password
from llmchatlinker.topology import DEAD_LETTER_EXCHANGE, DEAD_LETTER_QUEUE, QUEUE_NAMES

OLDEST_BROKER = (3, 10)
APPLY = "`llmchatlinker broker apply` sets them; with --print it prints rabbitmqctl commands."


def broker() -> Iterator[Check]:
    """Reachable, of a version that will do, with the right queues and policies."""
    settings = get_settings()
    if settings.broker_is_embedded:
        yield ok("broker", "the embedded one: messages travel through PostgreSQL")
        return
    with broker_facts.connected() as connection:
        yield _version(connection)
        yield _queues(connection)
        yield _dead_letters(connection)
    yield from checked("policies", lambda: [_policies()])


def _version(connection: Any) -> Check:
    properties = connection.connection.server_properties
    product, version = properties.get("product", "?"), str(properties.get("version", "?"))
    found = f"{product} {version} at {without_password(get_settings().broker_url)}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if product == "RabbitMQ" and numbers < OLDEST_BROKER:
        return fail("broker", found, "Quorum queues need RabbitMQ 3.10 or newer: upgrade it.")
    return ok("broker", found)


def _queues(connection: Any) -> Check:
    missing, wrong, unseen = [], [], []
    for name in (*QUEUE_NAMES, DEAD_LETTER_QUEUE):
        try:
            with connection.channel() as channel:
                channel.queue_declare(queue=name, passive=True)
            # The same declaration once more changes nothing, and is refused for a queue of another
            # type (https://www.rabbitmq.com/docs/queues#property-equivalence).
            with connection.channel() as channel:
                channel.queue_declare(
                    queue=name,
                    durable=True,
                    auto_delete=False,
                    arguments={"x-queue-type": "quorum"},
                )
        except NotFound:
            missing.append(name)
        except PreconditionFailed:
            wrong.append(name)
        except AccessRefused:
            unseen.append(name)
    if wrong:
        return fail(
            "queues",
            f"not quorum queues: {', '.join(wrong)}",
            f"Stop the workers, let these queues run empty, then {_deletions(wrong)}; workers make "
            "them anew.",
        )
    if missing:
        return warn(
            "queues",
            f"not there yet: {', '.join(missing)}",
            "The first worker that starts makes them.",
        )
    if unseen:
        return ok("queues", f"there; this user may not see the type of {', '.join(unseen)}")
    return ok("queues", f"{len(QUEUE_NAMES)} and {DEAD_LETTER_QUEUE}, all of them quorum queues")


def _deletions(names: list[str]) -> str:
    """The commands that delete queues, on the virtual host that all nodes have."""
    host = broker_policies.virtual_host(get_settings())
    return " && ".join(f"rabbitmqctl delete_queue -p {shlex.quote(host)} {name}" for name in names)


def _dead_letters(connection: Any) -> Check:
    try:
        with connection.channel() as channel:
            channel.exchange_declare(DEAD_LETTER_EXCHANGE, "fanout", passive=True)
        with connection.channel() as channel:
            waiting = channel.queue_declare(queue=DEAD_LETTER_QUEUE, passive=True).message_count
    except NotFound:
        return warn(
            "dead letters",
            "their exchange or queue is not there",
            "The first worker that starts makes them.",
        )
    except AccessRefused:
        return ok("dead letters", "this user may not look")
    if waiting:
        return warn(
            "dead letters",
            f"{waiting} not taken in yet",
            "Workers of `database` take them in every few seconds: start one, and read its log.",
        )
    return ok("dead letters", "their exchange and queue are there, and empty")


def _policies() -> Check:
    if not get_settings().broker_api_url:
        return warn(
            "policies",
            "can't be seen over AMQP",
            "Set LLMCHATLINKER_BROKER_API_URL, or compare `rabbitmqctl list_policies` with "
            "`llmchatlinker broker apply --print`.",
        )
    missing = broker_policies.missing(get_settings())
    if missing:
        return fail("policies", f"missing or different: {', '.join(missing)}", APPLY)
    return ok("policies", ", ".join(broker_policies.policies()))


def workers() -> Iterator[Check]:
    """Every queue has a worker."""
    found = broker_facts.workers()
    served = {queue for worker in found for queue in worker.queues}
    forsaken = [name for name in QUEUE_NAMES if name not in served]
    if not found:
        yield fail(
            "workers",
            "none answers",
            "Start one for all queues: celery -A llmchatlinker worker -n all@%h "
            f"-Q {','.join(QUEUE_NAMES)}",
        )
    elif forsaken:
        yield fail(
            "workers",
            f"nobody serves {', '.join(forsaken)}",
            f"celery -A llmchatlinker worker -n more@%h -Q {','.join(forsaken)}",
        )
    else:
        slots = sum(worker.slots or 0 for worker in found)
        said = f" with {slots} slots" if slots else ""
        yield ok("workers", f"{len(found)}{said}; every queue is served")


def clock() -> float | None:
    """Seconds by which the broker's clock is ahead of ours; None where it does not say."""
    if get_settings().broker_is_embedded or not get_settings().broker_api_url:
        return None
    try:
        return broker_policies.clock_ahead(get_settings())
    except LLMChatLinkerError:  # the check of the policies has said it
        return None
