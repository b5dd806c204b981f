"""``publish_message``: an instruction as JSON text in, its envelope as JSON text out."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from llmchatlinker.envelope import Envelope, failure
from llmchatlinker.errors import InvalidData, LLMChatLinkerError
from llmchatlinker.instruction_data.fields import shown
from llmchatlinker.orchestrator import submit
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.settings import get_settings

FIELDS = ("type", "data", "idempotency_key", "deadline")
#: Seconds beyond an instruction's deadline before a waiting client gives up: the deadline itself is
#: kept by the sweeper or by this client's own look.
BEYOND_DEADLINE = 30.0


def publish_message(message: str | bytes) -> str:
    """Submit the instruction in ``message``, wait for it, and return its envelope as JSON text.

    What is wrong with the message comes back as an error envelope. Raises Unavailable within a few
    seconds when PostgreSQL or the broker can't be reached.
    """
    try:
        instruction = parse_message(message)
        envelope = run(**instruction)
    except LLMChatLinkerError as error:
        if error.code in ("unavailable", "configuration"):
            raise
        envelope = failure(None, error, "decode")
    return json.dumps(envelope, ensure_ascii=False)


def run(
    type: object, data: object, idempotency_key: str | None = None, deadline: float | None = None
) -> Envelope:
    """Submit and wait. Raises what ``orchestrator.submit`` and ``InstructionResult.get`` raise."""
    instruction_id = submit(type, data, deadline=deadline, idempotency_key=idempotency_key)
    return InstructionResult(instruction_id).get(timeout=longest_wait(deadline))


def longest_wait(deadline: float | None) -> float:
    """Seconds after which a client gives up on an instruction with this deadline (None: the default)."""
    longest = get_settings().generation_deadline if deadline is None else deadline
    return longest + BEYOND_DEADLINE


def parse_message(message: str | bytes) -> dict[str, Any]:
    """The instruction in a JSON text; InvalidData says what is wrong with it."""
    limit = get_settings().instruction_bytes
    if len(message) > limit:
        raise InvalidData(
            f"The message is {len(message)} characters long; an instruction may have {limit} bytes.",
            {"size": len(message), "limit": limit},
        )
    try:
        document = json.loads(message, parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise InvalidData("The message is not UTF-8 text.") from None
    except RecursionError:
        raise InvalidData("The message is nested too deeply.") from None
    except ValueError as error:
        where = (
            f" (line {error.lineno}, column {error.colno})"
            if isinstance(error, json.JSONDecodeError)
            else ""
        )
        raise InvalidData(f"The message is not JSON{where}.") from None
    if not isinstance(document, dict):
        raise InvalidData("An instruction must be a JSON object with type and data.")
    unknown = [shown(name) for name in document if name not in FIELDS]
    if unknown:
        raise InvalidData(
            f"An instruction has no field {unknown[0]!r}.",
            {
                "fields": [
                    {"field": name, "problem": "is not a field of an instruction"}
                    for name in unknown[:20]
                ]
            },
        )
    if "type" not in document:
        raise InvalidData(
            "type is missing.", {"fields": [{"field": "type", "problem": "is missing"}]}
        )
    return {"data": {}} | {
        key: value for key, value in document.items() if value is not None or key == "type"
    }


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
