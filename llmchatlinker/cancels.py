"""Cancelling from anywhere: in the caller's own process, past all queues."""

from __future__ import annotations

import uuid
from typing import Any

from celery.app.control import Control
from sqlalchemy.orm import Session

from llmchatlinker.after_commit import follow
from llmchatlinker.db.sessions import database
from llmchatlinker.errors import Cancelled, ConfigurationError
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.remote_control import Mailbox
from llmchatlinker.results.reading import end
from llmchatlinker.settings import get_settings
from llmchatlinker.turns import Aftermath
from llmchatlinker.units.cancelling import request


def cancel(instruction_id: uuid.UUID, *, patience: float | None = None) -> bool:
    """Have a generation ended; False where the id is no generation's.

    What is not being called for ends at once; a call ends within 0.5 s on the worker that holds it,
    and its instruction with it. What has ended stays as it is. ``patience``: as of ``Database.run``.
    """

    def work(session: Session) -> tuple[bool, Aftermath]:
        aftermath = Aftermath()
        instruction = request(session, instruction_id, "cancelled", aftermath)
        return instruction is not None and instruction.turn is not None, aftermath

    found, aftermath = database().run(work, patience=patience)
    follow(aftermath, patiently=patience is not None)
    return found


def revoke(instruction_id: uuid.UUID, *, patience: float | None = None) -> None:
    """Celery's word for it, for any instruction: one that is no generation ends before its work."""
    if not cancel(instruction_id, patience=patience):
        end(instruction_id, Cancelled(), patience=patience)


class CancellingControl(Control):
    """Celery's remote control, but instructions are revoked here and now.

    Celery would have every worker remember the id of the chain's last task, which is `store`: nothing
    would be cancelled (``celery/worker/control.py``, ``_revoke``).
    """

    Mailbox = Mailbox

    def broadcast(self, command: str, arguments: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Send a command to the workers, less the instructions that are to be revoked."""
        if command == "revoke" and arguments:
            given = arguments.get("task_id")
            others = []
            for task_id in given if isinstance(given, list | tuple | set) else [given]:
                instruction_id = as_instruction_id(task_id)
                if instruction_id is None:
                    others.append(task_id)
                else:
                    revoke(instruction_id, patience=get_settings().client_patience)
            if not others:
                return [] if kwargs.get("reply") else None
            arguments = arguments | {"task_id": others}
        if get_settings().broker_is_embedded:
            raise ConfigurationError(
                "`inspect`, `control` and Flower need RabbitMQ: where messages travel through "
                "PostgreSQL, workers hear no remote control. Set LLMCHATLINKER_BROKER_URL to RabbitMQ; "
                "INSTRUCTION_LIST and INSTRUCTION_GET show what goes on in the embedded system."
            )
        return super().broadcast(command, arguments, *args, **kwargs)
