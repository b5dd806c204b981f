"""Poison: instructions that end the worker process that executes them. Workers ``--include`` it.

USER_CREATE of a user named ``poison…`` kills its worker when it is executed, as a library that crashes
would; ``rejected…`` has its message refused.
"""

from __future__ import annotations

import os
import signal
import sys
import uuid

from celery.exceptions import Reject

from llmchatlinker import stages
from llmchatlinker.db.sessions import database
from llmchatlinker.instructions import InstructionType

MODULE = __name__

_execute = stages.execute


def execute(instruction_id: uuid.UUID, spec: InstructionType, worker: str) -> bool:
    """The product's own, but for those."""
    rows = database().statement(
        # Only where it is due: what has ended is looked at, and not executed.
        "SELECT data ->> 'username' FROM instructions WHERE id = %(id)s AND state = 'decoded'",
        {"id": str(instruction_id)},
    )
    name = rows[0][0] if rows and rows[0][0] else ""
    if name.startswith("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("rejected"):
        raise Reject("no", requeue=False)
    return _execute(instruction_id, spec, worker)


# Only in a worker that names this module: tests import it for its name alone.
if any(MODULE in argument for argument in sys.argv):
    stages.execute = execute
