"""Remote control: what a worker does that whoever reaches the broker tells it.

RabbitMQ can't tell a question to workers from an order, and its default exchange takes either to a
worker from every user who may publish there. So a worker answers questions and obeys orders that harm
nobody, and refuses the others, unless the setting ``remote_control`` allows them. Celery's own commands
are in ``celery/worker/control.py``; one that an operator's own module adds is that operator's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from kombu import pidbox

from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

#: Questions; what Flower and the workers among themselves need; and ``revoke``, which takes the id of a
#: task, and so no more than a client may do anyway. Not the questions that search all of a worker's
#: memory.
HARMLESS = frozenset(
    (
        "active", "active_queues", "clock", "conf", "ping", "query_task", "registered", "report",
        "reserved", "revoked", "scheduled", "stats",
        "enable_events", "heartbeat", "hello",
        "revoke", "revoke_by_stamped_headers",
    )
)  # fmt: skip

Handler = Callable[..., Any]
#: Where Celery's own commands are; clients don't load it.
CELERYS = "celery.worker.control"


class Mailbox(pidbox.Mailbox):
    """Celery's, whose nodes know the harmless commands."""

    def Node(
        self,
        hostname: str | None = None,
        state: Any = None,
        channel: Any = None,
        handlers: Mapping[str, Handler] | None = None,
    ) -> Any:
        """What a worker listens with."""
        guard = guarded(handlers or {})
        return super().Node(hostname, state, channel, guard)  # type: ignore[no-untyped-call]


def guarded(handlers: Mapping[str, Handler]) -> dict[str, Handler]:
    """The same, less what is refused."""
    if get_settings().remote_control == "all":
        return dict(handlers)
    return {
        name: handler if _is_allowed(handler) else partial(_refuse, name)
        for name, handler in handlers.items()
    }


def _is_allowed(handler: Handler) -> bool:
    return handler.__module__ != CELERYS or handler.__name__ in HARMLESS


def _refuse(name: str, state: Any, **arguments: Any) -> dict[str, str]:
    logger.warning(
        "Remote control: %r is refused; LLMCHATLINKER_REMOTE_CONTROL=all allows it", name
    )
    return {"error": f"{name} is refused: see LLMCHATLINKER_REMOTE_CONTROL"}
