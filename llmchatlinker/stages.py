"""The three stages as functions of an instruction id. Each may be delivered twice.

Each returns whether the chain goes on. A stage that finds its work done goes on from it; one whose
row is missing, withdrawn, parked or in another worker's hands ends there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from llmchatlinker.after_commit import follow
from llmchatlinker.db import driver
from llmchatlinker.db.driver import Rows, Transaction
from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import success
from llmchatlinker.instruction_data.fields import Data
from llmchatlinker.instructions import INSTRUCTION_SET, InstructionType, instruction_type
from llmchatlinker.just_decoded import just_decoded
from llmchatlinker.orchestrator import announce
from llmchatlinker.outcomes import finalise
from llmchatlinker.provider_stage import execute_with_provider
from llmchatlinker.stage_rules import Closed, check_due, check_size, dropped, failed, run_stage
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.turns import Aftermath
from llmchatlinker.units import straight, turn_policies
from llmchatlinker.units.control import (
    chat_of,
    is_complete,
    looks_up,
    parse,
    resolve,
    users_of,
)
from llmchatlinker.units.handling import Reader

_READ = """
    SELECT type, data, state, deadline_at < clock_timestamp() FROM instructions WHERE id = %(id)s
"""

#: The same, and what is complete as it is goes on to its unit at once: most instructions name ids only.
#: Their users and chat are in the row since it was submitted. Neither this nor ``DECODED`` waits for
#: the disk: what a crash of PostgreSQL forgets of them is done again (docs/adr/0039).
_DECODE = """
    WITH decoded AS (
        UPDATE instructions
           SET state = 'decoded', decoded_at = now(), published_at = now()
         WHERE id = %(id)s AND state = 'submitted' AND deadline_at >= clock_timestamp()
           AND type IN (/* complete */)
        RETURNING id
    )
    SELECT type, data, state, extract(epoch FROM deadline_at - clock_timestamp()),
           EXISTS (SELECT FROM decoded), set_config('synchronous_commit', 'off', true)
      FROM instructions WHERE id = %(id)s
""".replace(
    "/* complete */",
    ", ".join(f"'{spec.name}'" for spec in INSTRUCTION_SET.values() if is_complete(spec.data)),
)


def decode(instruction_id: uuid.UUID) -> bool:
    """Validate type and data, resolve names to ids; what is wrong becomes the outcome.

    One statement, or two and no transaction around them: the second compares and sets.
    """
    rows = database().statement(_DECODE, {"id": str(instruction_id)}, prepare=True)
    try:
        if not rows:
            raise Closed(dropped(instruction_id))
        type_name, raw, state, left, done, _ = rows[0]
        notes.type = type_name
        check_due(instruction_id, state, "submitted", left < 0)
        spec = instruction_type(type_name)
        data = parse(spec.data, raw)
        if done:
            if isinstance(spec.handler, Reader):
                just_decoded.remember(str(instruction_id), type_name, raw, float(left))
            return True
        id = {"id": str(instruction_id)}
        if straight.decode(data, lambda resolved: _as_values(resolved, None) | id):
            return True
        if looks_up(data):
            values, aftermath = database().run(lambda s: _resolved(s, instruction_id, data))
            follow(aftermath)
        else:
            values = _as_values(data, None)
    except Closed as closed:
        return closed.goes_on
    except Exception as error:
        return failed(instruction_id, "decode", error)
    database().statement(straight.DECODED, values | id, prepare=True)
    return True


def _resolved(
    session: Session, instruction_id: uuid.UUID, data: Data
) -> tuple[dict[str, Any], Aftermath]:
    data, aftermath = resolve(session, data), Aftermath()
    values = _as_values(data, session)
    turn_policies.apply(session, instruction_id, data, values["chat_id"], aftermath)
    return values, aftermath


def _as_values(data: Data, session: Session | None) -> dict[str, Any]:
    return {
        "data": data.model_dump_json(exclude_none=True),
        "user_ids": users_of(session, data) or None,
        "chat_id": chat_of(session, data),
    }


def execute(instruction_id: uuid.UUID, spec: InstructionType, worker: str) -> bool:
    """Do the work of the instruction and commit it together with its outcome."""
    handler = spec.handler
    if isinstance(handler, Reader):
        return run_stage(
            instruction_id,
            "execute",
            lambda: database().run_on_driver(partial(_read, instruction_id, spec, handler)),
        )
    if not callable(handler):
        return execute_with_provider(instruction_id, spec, handler, worker)

    def transaction(session: Session) -> None:
        def work(data: Any) -> dict[str, Any]:
            result = handler(session, data)
            session.flush()
            return result

        _execute(driver.within(session), instruction_id, spec, work)

    return run_stage(instruction_id, "execute", lambda: database().run(transaction))


def _read(
    instruction_id: uuid.UUID, spec: InstructionType, handler: Reader, rows: Transaction
) -> None:
    """Nothing else is written, so whether another delivery was faster need not be known."""
    rows.last(_done(rows, instruction_id, spec, partial(handler, rows)), _EXECUTED)


def store(instruction_id: uuid.UUID) -> bool:
    """Make the result final under the client's id, and wake the client."""
    ending = finalise(instruction_id)
    if ending is None:
        notes.outcome = "repeated"
    else:
        notes.type, notes.outcome = ending.type, ending.code
        announce(ending)
    return True


#: Compares and sets, so the row need not be locked before: of two deliveries at once, the second
#: waits here for the first, finds it done, and its own work is rolled back. Without an API key, which
#: is stored where it belongs by now; USER_CREATE's user is its own.
_EXECUTED = """
    UPDATE instructions
       SET state = 'executed', outcome = %(outcome)s, executed_at = now(), published_at = now(),
           user_ids = coalesce(user_ids, %(user_ids)s),
           data = CASE WHEN data ? 'api_key' OR data ? 'settings'
                       THEN data - 'api_key' #- '{settings,headers}' ELSE data END
     WHERE id = %(id)s AND state = 'decoded'
    RETURNING id
"""


def _execute(
    rows: Rows,
    instruction_id: uuid.UUID,
    spec: InstructionType,
    work: Callable[[Any], dict[str, Any]],
) -> None:
    if not rows(_done(rows, instruction_id, spec, work), _EXECUTED):
        raise Closed(True)  # done by another delivery just now


def _done(
    rows: Rows,
    instruction_id: uuid.UUID,
    spec: InstructionType,
    work: Callable[[Any], dict[str, Any]],
) -> dict[str, Any]:
    """Do the work; returns what ``_EXECUTED`` takes.

    The row is read and written on the driver: the ORM took a third of a worker's time here.
    """
    text = str(instruction_id)
    known = just_decoded.take(text)
    if known is None or known.type != spec.name:
        found = rows({"id": text}, _READ)
        if not found or found[0][0] != spec.name:
            raise Closed(dropped(instruction_id))
        _, raw, state, late = found[0]
        check_due(instruction_id, state, "decoded", late)
    else:
        raw = known.data
    result = work(parse(spec.data, raw, decoded=True))
    user = result.get("user")
    outcome = json.dumps(success(text, result, spec.done))
    check_size(outcome)
    return {
        "id": text,
        "outcome": outcome,
        "user_ids": [user["user_id"]] if isinstance(user, dict) else None,
    }
