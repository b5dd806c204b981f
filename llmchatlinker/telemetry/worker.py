"""Telemetry of a worker: switched on by the settings, when the worker starts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry import logs, tracing


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What a worker's metrics say of it."""

    queues: tuple[str, ...]
    slots: int

    def in_use(self) -> int:
        """Stages that it is at."""
        return len(state.active_requests)


class TelemetryStep(bootsteps.StartStopStep):
    """Starts with the worker, in its main process: on threads that is where the stages run."""

    def start(self, worker: Any) -> None:
        """Show the metrics, if they are asked for."""
        queues = tuple(sorted(worker.app.amqp.queues.consume_from))
        _expose(worker.hostname, WorkerView(queues, int(worker.concurrency)))

    def stop(self, worker: Any) -> None:
        """Send the last spans, and take the file away."""
        if _is_wanted():
            from llmchatlinker.telemetry.exposition import conceal

            conceal()
        tracing.flush()

    terminate = stop


def install() -> None:
    """Set this process up as a worker's."""
    logs.install()
    signals.worker_process_init.connect(_in_a_child, weak=False)


def _in_a_child(**_: Any) -> None:
    """A process of the prefork pool: the stages run here, so it shows metrics of its own."""
    _expose(f"pool{os.getpid()}@{os.uname().nodename}", None)


def _is_wanted() -> bool:
    settings = get_settings()
    return bool(settings.metrics_port or settings.metrics_textfile)


def _expose(name: str, view: WorkerView | None) -> None:
    if _is_wanted():  # prometheus_client is loaded only where it is of use
        from llmchatlinker.telemetry.collecting import is_worker
        from llmchatlinker.telemetry.exposition import expose

        is_worker(view)
        expose(name)
