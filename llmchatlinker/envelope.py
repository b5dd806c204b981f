"""The envelope: the shape in which every instruction's end comes back to its client."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict, cast

from llmchatlinker.errors import LLMChatLinkerError

Stage = Literal["decode", "execute", "store"]


class EnvelopeError(TypedDict):
    """Why an instruction failed: a code of ``errors.py``, where, and what a program may want to know."""

    code: str
    stage: Stage
    details: dict[str, Any]


class Envelope(TypedDict):
    """What ``AsyncResult.get()``, the client and ``publish_message`` return.

    ``instruction_id`` is null for what was refused before it became an instruction.
    """

    status: Literal["success", "error"]
    message: str
    data: dict[str, Any]
    instruction_id: str | None
    error: NotRequired[EnvelopeError]


def success(instruction_id: str, data: dict[str, Any], message: str = "done") -> Envelope:
    """The envelope of an instruction that did its work."""
    return {"status": "success", "message": message, "data": data, "instruction_id": instruction_id}


def failure(
    instruction_id: str | None,
    error: LLMChatLinkerError,
    stage: Stage,
    data: dict[str, Any] | None = None,
) -> Envelope:
    """The envelope of an instruction that ended with ``error`` in ``stage``.

    ``data``: what there is of its work all the same, such as an answer as far as it came.
    """
    return {
        "status": "error",
        "message": error.message,
        "data": data or {},
        "instruction_id": instruction_id,
        "error": {"code": error.code, "stage": stage, "details": error.details},
    }


def restored(document: dict[str, Any]) -> Envelope:
    """An envelope as read from JSONB, which keeps no order of keys, in the order of its class."""
    keys = ("status", "message", "data", "instruction_id", "error")
    return cast(Envelope, {key: document[key] for key in keys if key in document})
