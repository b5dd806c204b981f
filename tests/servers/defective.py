"""Defects that quote what they stumble over. Workers ``--include`` it; see ``poison.py``."""

from __future__ import annotations

import sys
import uuid

from llmchatlinker import stage_rules, stages
from llmchatlinker.db.sessions import database
from llmchatlinker.instructions import InstructionType

MODULE = __name__

_execute = stages.execute


def execute(instruction_id: uuid.UUID, spec: InstructionType, worker: str) -> bool:
    """The product's own, but profiles are no numbers."""
    rows = database().statement(
        "SELECT data ->> 'username', data ->> 'profile' FROM instructions WHERE id = %(id)s",
        {"id": str(instruction_id)},
    )
    name, profile = rows[0]

    if name == "defect":
        return stage_rules.run_stage(instruction_id, "execute", lambda: int(profile))
    if name == "defect outside":
        int(profile)
    return _execute(instruction_id, spec, worker)


# Only in a worker that names this module: tests import it for its name alone.
if any(MODULE in argument for argument in sys.argv):
    stages.execute = execute
