"""The Orchestrator: the cycle of an instruction as a Celery chain, ``decode | execute | store``.

Row first, message second: an instruction is committed before its message is published, and a message
carries its id and nothing else. The client's id is that of the chain's last task.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Iterable
from typing import Any

from celery import chain
from celery.canvas import Signature
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import case, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from llmchatlinker.celery_app import app
from llmchatlinker.db.models import Instruction, Message
from llmchatlinker.db.sessions import database
from llmchatlinker.errors import Conflict, InvalidData, Unavailable
from llmchatlinker.ids import new_instruction_id
from llmchatlinker.instruction_data.fields import check_storable
from llmchatlinker.instructions import InstructionType, instruction_type
from llmchatlinker.outcomes import Ending, Released
from llmchatlinker.results.hints import hint
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.settings import get_settings, without_password
from llmchatlinker.topology import DECODE_TASK, STORE_TASK

logger = logging.getLogger(__name__)

LONGEST_DEADLINE = 86_400.0
KEY_LENGTH = 200
#: States of a row and the stage that is due in them.
DUE = {"submitted": 0, "decoded": 1, "executed": 2}


def cycle(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    state: str = "submitted",
    reply_to: str | None = None,
) -> Signature:
    """The chain of what is left for an instruction in ``state``."""
    # Without a time limit for the confirm, a frozen broker would hold the publisher for ever.
    options: dict[str, Any] = {"confirm_timeout": get_settings().confirm_timeout}
    if reply_to is not None:
        options["reply_to"] = reply_to
    first, *rest = (DECODE_TASK, spec.task_name, STORE_TASK)[DUE[state] :]
    signatures = [app.signature(first, args=(str(instruction_id),), options=dict(options))]
    signatures += [app.signature(name, options=dict(options)) for name in rest]
    return chain(signatures, app=app)


def publish(
    instruction_id: uuid.UUID,
    spec: InstructionType,
    state: str,
    reply_to: str | None = None,
    **options: Any,
) -> None:
    """Put the stage that is due onto its queue. The id is the last task's, and every task's root.

    ``options`` are those of ``apply_async`` for the first message. The chain's own ``run`` does the
    same, but keeps a ``producer`` for itself (celery/canvas.py), and then takes one more.
    """
    text = str(instruction_id)
    steps = cycle(instruction_id, spec, state, reply_to)
    tasks, _ = steps.prepare_steps((), {}, steps.tasks, root_id=text, app=app, last_task_id=text)
    first = tasks.pop()
    first.apply_async(chain=tasks, **options)


def submit(
    type_name: object,
    data: object,
    *,
    deadline: float | None = None,
    idempotency_key: str | None = None,
) -> str:
    """Commit an instruction and publish it; return its id.

    ``deadline``: seconds. Raises UnknownInstruction or InvalidData for what can't be stored, Conflict
    for an idempotency key that was used with other data, and Unavailable when a server can't be
    reached: then the instruction will not run, unless the error's details carry an ``instruction_id``.
    """
    spec = instruction_type(type_name)
    checked = _checked(data)
    seconds = _deadline(spec, deadline)
    _check_key(idempotency_key)
    new_id = new_instruction_id()
    reply_to = wakeups().reply_to()
    row: dict[str, Any] = {
        "id": new_id,
        "type": spec.name,
        "data": checked,
        "turn": "queued" if spec.takes_turn else None,
        "idempotency_key": idempotency_key,
        "fingerprint": _fingerprint(spec, checked) if idempotency_key else None,
        "reply_to": reply_to,
    }
    patience = get_settings().client_patience
    found = database().run(
        lambda session: _insert(session, row, seconds, checked), patience=patience
    )
    if found != new_id:
        return str(found)  # the same instruction was submitted before, and is on its way
    wakeups().submitted(str(new_id))
    try:
        _publish_from_client(new_id, spec, reply_to)
    except Exception as error:
        if _withdraw(new_id, error):
            raise _no_broker(error) from None
    return str(new_id)


def _checked(data: object) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise InvalidData(
            "data must be an object.",
            {"fields": [{"field": "data", "problem": "must be an object"}]},
        )
    check_storable(data)
    try:
        size = len(json.dumps(data, ensure_ascii=False, allow_nan=False).encode("utf-8"))
    except (TypeError, ValueError, RecursionError):
        raise InvalidData("data must be plain JSON: objects, lists, texts, numbers.") from None
    limit = get_settings().instruction_bytes
    if size > limit:
        raise InvalidData(
            f"data is {size} bytes long; an instruction may have {limit}.",
            {"bytes": size, "limit": limit},
        )
    return data


def _deadline(spec: InstructionType, deadline: float | None) -> float:
    settings = get_settings()
    if deadline is None:
        return settings.generation_deadline if spec.takes_turn else settings.deadline
    if isinstance(deadline, bool) or not isinstance(deadline, int | float):
        raise InvalidData("deadline must be a number of seconds.", _field("deadline"))
    if not 0 < deadline <= LONGEST_DEADLINE:
        raise InvalidData(
            f"deadline must be more than 0 and at most {LONGEST_DEADLINE:.0f} seconds.",
            _field("deadline"),
        )
    return float(deadline)


def _check_key(key: object) -> None:
    if key is None:
        return
    if not isinstance(key, str) or not 0 < len(key) <= KEY_LENGTH:
        raise InvalidData(
            f"idempotency_key must be a text of 1 to {KEY_LENGTH} characters.",
            _field("idempotency_key"),
        )
    check_storable(key, "idempotency_key")


def _field(name: str) -> dict[str, Any]:
    return {"fields": [{"field": name, "problem": "is not allowed"}]}


def _fingerprint(spec: InstructionType, data: dict[str, Any]) -> bytes:
    text = json.dumps([spec.name, data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).digest()


def _insert(
    session: Session, row: dict[str, Any], seconds: float, data: dict[str, Any]
) -> uuid.UUID:
    """Insert the row; return its id, or that of the instruction that has its idempotency key."""
    statement = (
        insert(Instruction)
        .values(
            **row,
            chat_id=_turn_chat(row, data),
            deadline_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds),
        )
        .on_conflict_do_nothing()
        .returning(Instruction.id)
    )
    inserted = session.scalar(statement)
    if inserted is not None:
        return inserted
    # Either an earlier run of this function committed and its answer was lost, or the key is taken.
    if session.scalar(select(Instruction.id).where(Instruction.id == row["id"])) is not None:
        new_id: uuid.UUID = row["id"]
        return new_id
    taken = session.execute(
        select(Instruction.id, Instruction.fingerprint).where(
            Instruction.idempotency_key == row["idempotency_key"]
        )
    ).one()
    if taken.fingerprint != row["fingerprint"]:
        raise Conflict(
            "The idempotency key was used for another instruction.",
            {"field": "idempotency_key", "instruction_id": str(taken.id)},
        )
    taken_id: uuid.UUID = taken.id
    return taken_id


def _turn_chat(row: dict[str, Any], data: dict[str, Any]) -> Any:
    """The chat in whose queue a turn takes its place now; what is no id is refused by decode."""
    if row["turn"] is None:
        return None
    chat_id, message_id = data.get("chat_id"), data.get("message_id")
    if _is_id(chat_id, 2**31):
        return chat_id
    if _is_id(message_id, 2**63):
        return select(Message.chat_id).where(Message.id == message_id).scalar_subquery()
    return None


def _is_id(value: object, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < below


def _publish_from_client(
    instruction_id: uuid.UUID, spec: InstructionType, reply_to: str | None
) -> None:
    """Publish within the client's patience: what can't be confirmed by then has failed.

    A pooled connection may have died unnoticed since its last use; that fails at once, and a second
    try gets a new one. Publishing twice is harmless.
    """
    patience = get_settings().client_patience
    started = time.monotonic()
    with app.producer_pool.acquire(block=True, timeout=patience) as producer:
        while True:
            connection = producer.connection
            try:
                connection.ensure_connection(
                    max_retries=1, interval_start=0, interval_step=0.2, timeout=patience
                )
                options = {"producer": producer, "retry": False}
                publish(instruction_id, spec, "submitted", reply_to, **options)
            except Exception:
                # Not an orderly close: that would wait for the answer of a broker that gives none.
                connection.collect()
                if time.monotonic() - started > patience / 4:
                    raise
                started -= patience  # once
                producer.revive(connection)
            else:
                return


def _withdraw(instruction_id: uuid.UUID, cause: Exception) -> bool:
    """Take back a row whose message is not known to be published; False when it runs already."""

    def work(session: Session) -> bool:
        row = session.execute(
            update(Instruction)
            .where(Instruction.id == instruction_id, Instruction.state == "submitted")
            .values(
                state="withdrawn",
                final_at=func.now(),
                idempotency_key=None,  # a repetition of the submission shall be a new instruction
                turn=case((Instruction.turn.is_(None), None), else_="done"),
            )
            .returning(Instruction.chat_id)
            .execution_options(synchronize_session=False)
        ).first()
        return row is not None

    try:
        return database().run(work, patience=get_settings().client_patience)
    except Unavailable as error:
        raise Unavailable(
            f"{_no_broker(cause).message} PostgreSQL does not answer either, so the instruction "
            "could not be withdrawn: it may still run.",
            error.details | {"instruction_id": str(instruction_id)},
        ) from None


def _no_broker(error: Exception) -> Unavailable:
    address = without_password(get_settings().broker_url)
    reason = str(error).strip().splitlines()
    said = (
        f": {reason[0]}" if reason and isinstance(error, BrokerError | KombuError | OSError) else ""
    )
    return Unavailable(
        f"The broker at {address} does not take the message{said}. "
        "Check that it runs and that LLMCHATLINKER_BROKER_URL is right.",
        {"server": "broker", "address": address},
    )


def publish_released(released: Iterable[Released]) -> None:
    """Send on what has waited. The sweeper does it where this fails."""
    for item in released:
        try:
            publish(item.instruction_id, instruction_type(item.type), "decoded")
        except Exception:
            logger.exception("Instruction %s could not be sent on yet", item.instruction_id)


def announce(ending: Ending) -> None:
    """What follows an id's end, once it is committed: clients wake, and the turn behind goes on."""
    hint(ending)
    publish_released(ending.released)
