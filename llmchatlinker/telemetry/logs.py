"""How a worker logs: one line per stage, as plain text or as JSON, Celery's own lines included."""

from __future__ import annotations

import json
import logging
import time
import uuid
from typing import Any

from celery import signals

from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry import stages, tracing
from llmchatlinker.topology import DECODE_TASK, STORE_TASK

_STAGES = {DECODE_TASK, STORE_TASK} | {spec.task_name for spec in INSTRUCTION_SET.values()}


class NotStages(logging.Filter):
    """Keeps Celery from saying once more that a stage has ended; other tasks it tells of as ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        told = record.args
        return not (
            record.levelno == logging.INFO
            and isinstance(told, dict)
            and told.get("name") in _STAGES
        )


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON. Times are UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
        }
        if record.name == stages.logger.name and isinstance(record.args, dict):
            line |= record.args
            line["ms"] = round(line["ms"], 3)
            line["message"] = f"{line['stage']} of {line['type']}: {line['outcome']}"
        else:
            line["message"] = record.getMessage()
        trace_id = tracing.current_trace_id()
        if trace_id is not None:
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=_as_text)


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, uuid.UUID) else repr(value)


def install() -> None:
    """Have this process, a worker, log that way. Celery sets its handlers up later, and tells us."""
    # One line per stage is enough: when it has ended, and neither when it was received nor twice.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").addFilter(NotStages())
    if get_settings().log_format != "json":
        return
    signals.after_setup_logger.connect(_in_json, weak=False)
    signals.after_setup_task_logger.connect(_in_json, weak=False)
    signals.celeryd_init.connect(_without_banner, weak=False)
    # Until Celery has its handlers: it warns of being root before.
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(True)


def _in_json(logger: logging.Logger, **_: Any) -> None:
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter())


def _without_banner(instance: Any, **_: Any) -> None:
    """The picture at a worker's start is no line of a log."""
    instance.quiet = True
