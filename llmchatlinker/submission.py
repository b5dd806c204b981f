"""What a submitter checks before an instruction becomes a row: what can't be stored, or makes no sense.

Everything about the fields of ``data`` is decode's business.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any

from llmchatlinker.errors import InvalidData
from llmchatlinker.ids import as_instruction_id, new_instruction_id
from llmchatlinker.instruction_data.fields import (
    BIGINT_MAX,
    INTEGER_MAX,
    USER_FIELDS,
    check_storable,
)
from llmchatlinker.instructions import InstructionType, instruction_type
from llmchatlinker.settings import get_settings

LONGEST_DEADLINE = 86_400.0
KEY_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked instruction. ``deadline``: seconds; ``text``: its data as JSON."""

    id: uuid.UUID
    spec: InstructionType
    text: str
    deadline: float
    idempotency_key: str | None
    fingerprint: bytes | None
    #: Where a turn takes its place now; what is no id is refused by decode. Users and chat are in the
    #: row from the start so that decode, which writes the same, need not touch the indexes.
    chat_id: int | None
    message_id: int | None
    user_ids: list[int] | None
    #: The generation that it cancels.
    cancels: uuid.UUID | None = None


def check(
    type_name: object, data: object, deadline: float | None, idempotency_key: str | None
) -> Submission:
    """The submission, or UnknownInstruction or InvalidData."""
    spec = instruction_type(type_name)
    if not isinstance(data, dict):
        raise InvalidData("data must be an object.", _field("data", "must be an object"))
    check_storable(data)
    return Submission(
        id=new_instruction_id(),
        spec=spec,
        text=_text(data),
        deadline=_deadline(spec, deadline),
        idempotency_key=_key(idempotency_key),
        fingerprint=_fingerprint(spec, data) if idempotency_key else None,
        chat_id=_id(data.get("chat_id"), INTEGER_MAX),
        message_id=_id(data.get("message_id"), BIGINT_MAX) if spec.takes_turn else None,
        user_ids=_user_ids(data),
        cancels=as_instruction_id(data.get("instruction_id")) if spec.cancels else None,
    )


def _text(data: dict[str, Any]) -> str:
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise InvalidData("data must be plain JSON: objects, lists, texts, numbers.") from None
    size, limit = len(text.encode("utf-8")), get_settings().instruction_bytes
    if size > limit:
        raise InvalidData(
            f"data is {size} bytes long; an instruction may have {limit}.",
            {"bytes": size, "limit": limit},
        )
    return text


def _deadline(spec: InstructionType, deadline: float | None) -> float:
    settings = get_settings()
    if deadline is None:
        takes_long = spec.takes_turn or spec.takes_long
        return settings.generation_deadline if takes_long else settings.deadline
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        problem = "must be a number of seconds"
        raise InvalidData(f"deadline {problem}.", _field("deadline", problem))
    if not 0 < deadline <= LONGEST_DEADLINE:
        problem = f"must be more than 0 and at most {LONGEST_DEADLINE:.0f} seconds"
        raise InvalidData(f"deadline {problem}.", _field("deadline", problem))
    return float(deadline)


def _key(key: object) -> str | None:
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH:
        problem = f"must be a text of 1 to {KEY_LENGTH} characters"
        raise InvalidData(f"idempotency_key {problem}.", _field("idempotency_key", problem))
    check_storable(key, "idempotency_key")
    return key


def _field(name: str, problem: str) -> dict[str, Any]:
    return {"fields": [{"field": name, "problem": problem}]}


def _fingerprint(spec: InstructionType, data: dict[str, Any]) -> bytes:
    text = json.dumps([spec.name, data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).digest()


def _user_ids(data: dict[str, Any]) -> list[int] | None:
    ids: list[int | None] = []
    for name in USER_FIELDS:
        value = data.get(name)
        ids += [_id(item, INTEGER_MAX) for item in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(item for item in ids if item is not None)) or None


def _id(value: object, largest: int) -> int | None:
    is_id = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= largest
    return value if is_id else None  # type: ignore[return-value]  # is_id has checked it
