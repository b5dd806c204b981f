"""How a stage becomes a Celery task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.abstract import CallableSignature
from celery.worker.request import Request
from kombu.exceptions import KombuError

from llmchatlinker import stage_messages, stages, suspects
from llmchatlinker.celery_app import app
from llmchatlinker.defects import log_defect
from llmchatlinker.errors import InternalError, LLMChatLinkerError
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.instructions import INSTRUCTION_SET, InstructionType, Unit
from llmchatlinker.stage_messages import AGAIN
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.telemetry.stages import ObservedStage

logger = logging.getLogger(__name__)

#: What Celery itself goes by, and a hand-off that failed, which leaves the row to the sweeper.
LEFT_TO_CELERY = (Ignore, Reject, Retry, KombuError, ConnectionError)


class StageRequest(Request):
    """Celery's, but the body is opened once: ``message_check.py`` has done so, and the pool need not."""

    def __init__(self, message: Any, *, body: Any, decoded: bool, **options: Any) -> None:
        super().__init__(message, body=message.payload, decoded=True, **options)


class BriefRequest(StageRequest):
    """A stage that takes milliseconds sends no event of its start: its end follows."""

    def send_event(self, type: str, **fields: Any) -> None:
        """All others."""
        if type != "task-started":
            super().send_event(type, **fields)


@CallableSignature.register
class NextStage(dict[str, Any]):
    """The next step of a stage's chain, as Celery's tracer takes it (``celery/app/trace.py``).

    It would make a signature of it first, and options of both, to find what ``hand_on`` takes.
    """

    def clone(self) -> NextStage:
        """Itself: it is used once."""
        return self

    def apply_async(self, args: tuple[Any, ...], **options: Any) -> Any:
        """Publish it."""
        given = {key: value for key, value in options.items() if value is not None}
        return app.tasks[self["task"]].apply_async(args, **(self["options"] | given))


class StageTask(Task):
    """A stage as Celery's tracer hands on to it.

    Overridden of ``celery/app/task.py``: ``apply_async`` composes every message anew, for a third of
    what a worker does. Ours is composed once (``llmchatlinker/stage_messages.py``).
    """

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """The message of this stage, where it is an ordinary hand-off; Celery's for everything else."""
        if kwargs or not args or not stage_messages.hand_on(self.name, args[0], options):
            return super().apply_async(args, kwargs, **options)
        return None  # nobody waits for a stage


def stage_task(
    name: str, stage: Callable[[UUID], bool], state: str = "decoded", *, brief: bool = True
) -> Any:
    """A task that takes one instruction id, runs the stage, and hands the id on.

    ``state``: of the row when the stage is due. ``brief``: it takes no longer than the database does.
    """

    observed = ObservedStage(name)

    @app.task(  # type: ignore[untyped-decorator]  # Celery is not typed
        name=name,
        base=StageTask,
        Request=BriefRequest if brief else StageRequest,
        # An id is not made final once more at the end of each stage; a failure of Celery's own is told.
        ignore_result=True,
        store_errors_even_if_ignored=True,
    )
    def run(instruction_id: str) -> str:
        known = as_instruction_id(instruction_id)
        if known is None:
            raise Reject("not an instruction id", requeue=False)
        request = app.current_worker_task.request
        try:
            work = partial(suspects.run, known, state, partial(stage, known), request, brief=brief)
            goes_on = observed.run(known, request, work)
        except (*LEFT_TO_CELERY, LLMChatLinkerError):
            raise
        except Exception as error:
            # Celery would log its words, and they may be a user's.
            log_defect(logger, "Instruction %s: %s failed with a defect", known, name, error=error)
            raise InternalError(details={"exception": type(error).__name__}) from None
        if not goes_on:
            raise Ignore("the chain ends here")
        if notes.outcome == "repeated" and request.chain and suspects.comes_again(request):
            # Its worker may have died behind the hand-off: what comes next may have been begun, too.
            options = request.chain[-1]["options"]
            options["headers"] = {**(options.get("headers") or {}), AGAIN: True}
        if request.chain and _is_plain(request.chain[-1]):
            request.chain[-1] = NextStage(request.chain[-1])
        return instruction_id

    return run


def _is_plain(step: Any) -> bool:
    """Whether a chain's step is a stage that takes what the one before returns, and nothing else."""
    more = ("args", "kwargs", "immutable", "subtask_type")
    return isinstance(app.tasks.get(step["task"]), StageTask) and not any(map(step.get, more))


def execute_tasks(unit: Unit) -> dict[str, Any]:
    """A task for every instruction type of the unit, by the type's name."""
    return {
        spec.name: stage_task(spec.task_name, partial(_execute, spec), brief=callable(spec.handler))
        for spec in INSTRUCTION_SET.values()
        if spec.unit is unit
    }


def _execute(spec: InstructionType, instruction_id: UUID) -> bool:
    worker = str(app.current_worker_task.request.hostname)
    return stages.execute(instruction_id, spec, worker)
