"""What a person does with dead letters: look at them, replay one, or discard it."""

from __future__ import annotations

from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.errors import Conflict, NotFound
from llmchatlinker.instructions import instruction_type
from llmchatlinker.orchestrator import submit
from llmchatlinker.settings import get_settings

COLUMNS = (
    "id", "arrived_at", "queue", "reason", "task", "instruction_id", "size", "content_type",
    "became", "replayed_as",
)  # fmt: skip
_LETTERS = """
    SELECT id, arrived_at, queue, reason, task, CAST(instruction_id AS text), size, content_type,
           became, CAST(replayed_as AS text)
      FROM dead_letters
"""
_NEWEST = (
    _LETTERS
    + """
     WHERE (%(became)s IS NULL OR became = %(became)s) AND (%(before)s IS NULL OR id < %(before)s)
     ORDER BY id DESC LIMIT %(limit)s
"""
)
_ONE = _LETTERS + " WHERE id = %(id)s"
_INSTRUCTION = """
    SELECT type, state, outcome #>> '{error,code}', data, outcome ->> 'status'
      FROM instructions WHERE id = %(id)s
"""
_MARK = """
    UPDATE dead_letters
       SET became = %(became)s, replayed_as = coalesce(%(replayed_as)s, replayed_as)
     WHERE id = %(id)s RETURNING id
"""
#: Types whose rows lose a secret when they end.
_SECRETIVE = ("LLM_PROVIDER_ADD", "LLM_PROVIDER_UPDATE", "LLM_ADD", "LLM_UPDATE")

Shown = dict[str, Any]


def newest(limit: int, became: str | None = None, before: int | None = None) -> list[Shown]:
    """The newest letters; ``before``: an id, for the page that follows."""
    rows = _rows(_NEWEST, {"limit": limit, "became": became, "before": before})
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def one(letter_id: int) -> Shown:
    """A letter, and the type, state and error of its instruction where that is kept. NotFound."""
    letter = _letter(letter_id)
    instruction = _instruction(letter)
    told = instruction[:3] if instruction else (None, None, None)
    names = ("instruction_type", "instruction_state", "instruction_error")
    return letter | dict(zip(names, told, strict=True))


def replay(letter_id: int) -> tuple[str, str]:
    """Submit its instruction anew; the new id, and what should be known about it, or nothing.

    However often it is done, there is one new instruction: its idempotency key names the letter and
    the old instruction. NotFound where there is no data any longer, Conflict where the old one is open.
    """
    letter = _letter(letter_id)
    old = letter["instruction_id"]
    instruction = _instruction(letter)
    if instruction is None:
        said = (
            "is of no instruction of ours: its message was not kept, so there is nothing to replay"
            if old is None
            else f"is of instruction {old}, whose data is kept no longer: submit it anew"
        )
        raise NotFound(f"Dead letter {letter_id} {said}.", {"letter_id": letter_id})
    type_name, state, _, data, status = instruction
    if state not in ("final", "withdrawn"):
        raise Conflict(
            f"Instruction {old} is still open ({state}): it ends by itself, at its deadline at the "
            "latest.",
            {"instruction_id": old},
        )
    if status == "success":
        raise Conflict(f"Instruction {old} has succeeded without it.", {"instruction_id": old})
    required = [
        f for f in instruction_type(type_name).data.model_fields.values() if f.is_required()
    ]
    if required and not data:
        raise NotFound(f"The data of instruction {old} was erased with its user.")
    new = submit(type_name, data, idempotency_key=f"dead letter {letter_id} of {old}")
    _mark(letter_id, "replayed", new)
    warning = (
        "Its API key and the values of its headers are not kept in an instruction that has ended: "
        "give them to LLM_PROVIDER_UPDATE."
        if type_name in _SECRETIVE
        else ""
    )
    return new, warning


def discard(letter_id: int) -> None:
    """Nothing is to be done about it. NotFound."""
    _mark(letter_id, "discarded")


def _letter(letter_id: int) -> Shown:
    rows = _rows(_ONE, {"id": letter_id})
    if not rows:
        raise _no_letter(letter_id)
    return dict(zip(COLUMNS, rows[0], strict=True))


def _instruction(letter: Shown) -> tuple[Any, ...] | None:
    if letter["instruction_id"] is None:
        return None
    rows = _rows(_INSTRUCTION, {"id": letter["instruction_id"]})
    return tuple(rows[0]) if rows else None


def _mark(letter_id: int, became: str, replayed_as: str | None = None) -> None:
    values = {"id": letter_id, "became": became, "replayed_as": replayed_as}
    if not _rows(_MARK, values):
        raise _no_letter(letter_id)


def _rows(statement: str, values: dict[str, Any]) -> list[Any]:
    return database().statement(statement, values, patience=get_settings().client_patience)


def _no_letter(letter_id: int) -> NotFound:
    return NotFound(f"There is no dead letter {letter_id}.", {"letter_id": letter_id})
