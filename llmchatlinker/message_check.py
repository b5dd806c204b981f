"""What a message must look like before a worker takes it: one of ours, or none at all.

Celery opens a body in the pool, where what can't be opened leaks the slot without an ack
(``celery/concurrency/base.py``, ``apply_target``). So a stage's message is looked at here, before.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from llmchatlinker.ids import as_instruction_id

#: The tasks whose messages carry one instruction id and nothing else.
OURS = "llmchatlinker."
#: A stage's message takes less than 3 kB.
LARGEST = 65_536


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
    return _wrong_body(message)


def _is_moment(value: object) -> bool:
    if value is None:
        return True
    try:
        datetime.fromisoformat(str(value))
    except ValueError:
        return False
    return True


def _wrong_body(message: Any) -> str | None:
    if message.content_type != "application/json":
        return "is not JSON"
    if len(message.body) > LARGEST:
        return "is too large"
    try:
        body = json.loads(message.body)
    except (ValueError, TypeError, RecursionError):
        return "can't be decoded"
    match body:
        case [[str(instruction_id)], {**keywords}, {**embedded}]:
            known = as_instruction_id(instruction_id) is not None
            if known and not keywords and isinstance(embedded.get("chain"), list | None):
                return None
    return "does not carry one instruction id"
