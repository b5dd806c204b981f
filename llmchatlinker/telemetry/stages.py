"""What is told of a stage: a line in the log, its metrics, its span. One hook, in the task's wrapper."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.telemetry import tracing
from llmchatlinker.telemetry.notes import notes
from llmchatlinker.telemetry.switch import metrics
from llmchatlinker.topology import CONTROL, DATABASE, DECODE_TASK, STORE_TASK

#: A line per stage; its name tells such lines from others.
logger = logging.getLogger("llmchatlinker.stage")

LINE = (
    "stage=%(stage)s instruction=%(instruction_id)s type=%(type)s unit=%(unit)s "
    "attempt=%(attempt)d outcome=%(outcome)s ms=%(ms).1f"
)
_TYPES = {spec.task_name: spec for spec in INSTRUCTION_SET.values()}


#: Seconds: what claims to have waited longer has a header that is not ours.
_LONGEST = 7 * 86_400.0


class ObservedStage:
    """A stage's task as it is told of. ``task_name``: of the task."""

    def __init__(self, task_name: str) -> None:
        spec = _TYPES.get(task_name)
        self._type = None if spec is None else spec.name
        self._unit = DATABASE if spec is None else str(spec.unit)
        self._stage = "execute"
        if task_name == DECODE_TASK:
            self._unit, self._stage = CONTROL, "decode"
        elif task_name == STORE_TASK:
            self._stage = "store"

    def run(self, instruction_id: uuid.UUID, request: Any, work: Callable[[], bool]) -> bool:
        """Run the stage's work, tell of it, and return what it does: whether the chain goes on.

        ``request``: Celery's, of the task.
        """
        redelivered = (request.delivery_info or {}).get("redelivered")
        notes.begin(self._type, 2 if redelivered else 1)
        queued = _queued(request.get(tracing.PUBLISHED_AT))
        started = time.perf_counter()
        with tracing.observing(self._stage, self._unit, instruction_id, request) as span:
            otherwise = "failed"
            try:
                goes_on = work()
                otherwise = "success" if goes_on else "dropped"
            except LLMChatLinkerError as error:
                otherwise = error.code
                raise
            finally:
                outcome = notes.outcome or otherwise
                if span is not None:
                    span.end_with(notes, outcome)
                self._tell(instruction_id, time.perf_counter() - started, queued, outcome)
        if goes_on and request.chain:
            # What Celery publishes next says when: read there as its queue time.
            options = request.chain[-1]["options"]
            headers = {**(options.get("headers") or {}), tracing.PUBLISHED_AT: time.time()}
            if span is not None:
                headers[tracing.TRACEPARENT] = span.carried
            options["headers"] = headers
        return goes_on

    def _tell(
        self, instruction_id: uuid.UUID, seconds: float, queued: float | None, outcome: str
    ) -> None:
        counters = metrics()
        if counters is not None:
            counters.stage(notes.type, self._unit, self._stage, outcome, seconds, queued)
        if logger.isEnabledFor(logging.INFO):
            told = {
                "stage": self._stage,
                "instruction_id": instruction_id,
                "type": notes.type,
                "unit": self._unit,
                "attempt": notes.attempt,
                "outcome": outcome,
                "ms": seconds * 1000,
            }
            logger.info(LINE, told)


def _queued(published_at: object) -> float | None:
    """Seconds since then; clocks of machines differ a little."""
    if type(published_at) is not float:
        return None
    seconds = time.time() - published_at
    return max(0.0, seconds) if seconds < _LONGEST else None
