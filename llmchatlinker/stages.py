"""The three stages as functions of an instruction id. Each may be delivered twice.

Each returns whether the chain goes on. A stage that finds its work done goes on from it; one whose
row is missing, withdrawn, parked or in another worker's hands ends there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy.orm import Session

from llmchatlinker.db.sessions import database
from llmchatlinker.envelope import success
from llmchatlinker.instructions import InstructionType, instruction_type
from llmchatlinker.orchestrator import announce
from llmchatlinker.outcomes import commit_outcome, finalise
from llmchatlinker.provider_stage import execute_with_provider
from llmchatlinker.stage_rules import Closed, check_due, dropped, due, failed, run_stage
from llmchatlinker.turns import Released
from llmchatlinker.units.control import chat_of, parse, resolve, users_of

_READ = """
    SELECT type, data, state, deadline_at < clock_timestamp() FROM instructions WHERE id = %(id)s
"""

_DECODED = """
    UPDATE instructions
       SET data = %(data)s, user_ids = %(user_ids)s, chat_id = %(chat_id)s, state = 'decoded',
           decoded_at = now(), published_at = now()
     WHERE id = %(id)s AND state = 'submitted'
"""


def decode(instruction_id: uuid.UUID) -> bool:
    """Validate type and data, resolve names to ids; what is wrong becomes the outcome.

    Two statements and no transaction around them: the second compares and sets.
    """
    rows = database().statement(_READ, {"id": str(instruction_id)})
    try:
        if not rows:
            raise Closed(dropped(instruction_id))
        type_name, raw, state, late = rows[0]
        check_due(instruction_id, state, "submitted", late)
        spec = instruction_type(type_name)
        values = database().run(lambda session: _decoded(session, spec, raw))
    except Closed as closed:
        return closed.goes_on
    except Exception as error:
        return failed(instruction_id, "decode", error)
    database().statement(_DECODED, values | {"id": str(instruction_id)})
    return True


def _decoded(session: Session, spec: InstructionType, raw: dict[str, Any]) -> dict[str, Any]:
    data = resolve(session, parse(spec.data, raw))
    return {
        "data": data.model_dump_json(exclude_none=True),
        "user_ids": users_of(session, data) or None,
        "chat_id": chat_of(session, data),
    }


def execute(instruction_id: uuid.UUID, spec: InstructionType, worker: str) -> bool:
    """Do the work of the instruction and commit it together with its outcome."""
    handler = spec.handler
    if callable(handler):
        return run_stage(instruction_id, "execute", _transaction(instruction_id, spec, handler))
    return execute_with_provider(instruction_id, spec, handler, worker)


def store(instruction_id: uuid.UUID) -> bool:
    """Make the result final under the client's id, and wake the client."""
    ending = finalise(instruction_id)
    if ending is not None:
        announce(ending)
    return True


def _transaction(
    instruction_id: uuid.UUID, spec: InstructionType, handler: Callable[..., dict[str, Any]]
) -> Callable[[Session], tuple[Released, ...]]:
    def work(session: Session) -> tuple[Released, ...]:
        instruction = due(session, instruction_id, "decoded", spec)
        result = handler(session, parse(spec.data, instruction.data, decoded=True))
        return commit_outcome(session, instruction, success(str(instruction_id), result, spec.done))

    return work
