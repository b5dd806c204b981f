"""What a message must look like before a worker takes it: one of ours, or none at all.

Celery opens a body in the pool, where what can't be opened leaks the slot without an ack
(``celery/concurrency/base.py``, ``apply_target``). So a stage's message is looked at here, before.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kombu.exceptions import KombuError

from llmchatlinker.ids import as_instruction_id

#: The tasks whose messages carry one instruction id and nothing else.
OURS = "llmchatlinker."
#: A stage's message takes less than 3 kB.
LARGEST = 65_536


#: What Celery's headers are in a message of ours (``celery/app/amqp.py``, ``as_task_v2``), where they
#: are not None. Others make its request stumble in the pool.
HEADERS: dict[str, tuple[type, ...]] = {
    "retries": (int,),
    "timelimit": (list, tuple),
    "ignore_result": (bool,),
    "stamps": (dict,),
    "stamped_headers": (list,),
} | dict.fromkeys(
    ("shadow", "root_id", "parent_id", "group", "origin", "lang", "argsrepr", "kwargsrepr"), (str,)
)
#: Never in a message of ours: a stage waits as a row, and these are the worker's own to set.
NEVER = frozenset(("eta", "expires", "redelivered", "delivery_info", "hostname", "args", "kwargs"))


def what_is_wrong(message: Any) -> str | None:
    """Why a worker must not take this message; None when it may."""
    headers = message.headers
    if not isinstance(headers, dict) or not isinstance(headers.get("task"), str):
        return "names no task"
    if not isinstance(headers.get("id"), str):
        return "has no id"
    if not (_is_moment(headers.get("eta")) and _is_moment(headers.get("expires"))):
        return "has a time that is none"
    if not headers["task"].startswith(OURS):
        return None  # a user's own task, or one that nobody registered: Celery tells them apart
    return _wrong_headers(headers) or _wrong_body(message, headers.get("root_id"))


def _wrong_headers(headers: dict[str, Any]) -> str | None:
    for name, value in headers.items():
        if value is None:
            continue
        kinds = HEADERS.get(name)
        if kinds is not None and type(value) not in kinds:
            return "has headers that make no sense"
        if name in NEVER:
            return "has headers that no stage has"
    limits = headers.get("timelimit")
    if limits is not None and (len(limits) != 2 or any(limit is not None for limit in limits)):
        return "has time limits"
    root_id = headers.get("root_id")
    if root_id is not None and as_instruction_id(root_id) is None:
        return "is of no instruction"
    return None


def _is_moment(value: object) -> bool:
    if value is None:
        return True
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _wrong_body(message: Any, root_id: object) -> str | None:
    if message.content_type != "application/json" or message.content_encoding != "utf-8":
        return "is not JSON in UTF-8"
    if len(message.body) > LARGEST:
        return "is too large"
    try:
        body = message.payload  # which Celery opens once more otherwise: kombu keeps it
    except (KombuError, ValueError, TypeError, RecursionError):
        return "can't be decoded"
    match body:
        case [[str(instruction_id)], {**keywords}, {**embedded}]:
            # A cycle's root is its instruction, and known to be one already.
            known = instruction_id == root_id or as_instruction_id(instruction_id) is not None
            if known and not keywords and isinstance(embedded.get("chain"), list | None):
                return None
    return "does not carry one instruction id"
