"""A dead letter as it is kept: where it came from and why, and never what is in it."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.message_check import what_is_wrong
from llmchatlinker.topology import EXCHANGE

#: What a name of a task, a queue or a content type looks like; anything else may be somebody's text.
_NAME = re.compile(r"[A-Za-z0-9_.:@/+-]{1,200}")


@dataclass(frozen=True, slots=True)
class Letter:
    """What is known of a dead letter. ``again``: it may have been taken in before."""

    queue: str | None
    reason: str
    task: str | None
    instruction_id: uuid.UUID | None
    size: int = 0
    content_type: str | None = None
    #: Why no worker could take it; None for a message as our own are.
    problem: str | None = None
    fingerprint: bytes = b""
    again: bool = False


def letter_of(message: Any) -> Letter:
    """What a message from the dead-letter queue says of itself; its headers may hold anything."""
    headers = message.headers if isinstance(message.headers, dict) else {}
    deaths = headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths else {}
    death = death if isinstance(death, dict) else {}
    delivery = message.delivery_info or {}
    problem = what_is_wrong(message)
    known = None if problem is not None else as_instruction_id(headers.get("root_id"))
    reason, queue = _name(death.get("reason")), _name(death.get("queue"))
    if reason is None:
        # Without a death it came by way of the exchange, or somebody put it here.
        reason = "unroutable" if delivery.get("exchange") == EXCHANGE else "unknown"
    size = len(message.body) if isinstance(message.body, bytes | str | memoryview) else 0
    content_type = _name(message.content_type)
    died = [str(item) for item in (death.get("time"), death.get("count"))]
    told = [queue, reason, *died, str(headers.get("id")), str(headers.get("root_id")), size]
    return Letter(
        queue=queue,
        reason=reason,
        task=_name(headers.get("task")),
        instruction_id=known,
        size=size,
        content_type=content_type,
        problem=problem,
        fingerprint=hashlib.sha256(json.dumps(told).encode("ascii", "replace")).digest(),
        again=bool(delivery.get("redelivered")),
    )


def _name(value: object) -> str | None:
    return value if isinstance(value, str) and _NAME.fullmatch(value) else None


_KEEP = """
    INSERT INTO dead_letters
           (queue, reason, task, instruction_id, size, content_type, became, fingerprint)
    VALUES (%(queue)s, %(reason)s, %(task)s, %(instruction_id)s, %(size)s, %(content_type)s,
            %(became)s, %(fingerprint)s)
    RETURNING id
"""


def values_of(letter: Letter, became: str) -> dict[str, Any]:
    """The row of a letter."""
    return {
        "queue": letter.queue,
        "reason": letter.reason,
        "task": letter.task,
        "instruction_id": letter.instruction_id and str(letter.instruction_id),
        "size": letter.size,
        "content_type": letter.content_type,
        "became": became,
        "fingerprint": letter.fingerprint,
    }


def keep(letter: Letter, became: str) -> None:
    """Keep a letter that never was on the dead-letter queue."""
    database().statement(_KEEP, values_of(letter, became))
