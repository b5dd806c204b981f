"""The Celery tasks, thin: a module per unit and queue.

Loaded by workers only, from beside the package (``llmchatlinker/celery_app.py``).
"""

from llmchatlinker.celery_app import app
from llmchatlinker.db import start_check
from llmchatlinker.stopping import StopStep
from llmchatlinker.sweeper import SweeperStep
from llmchatlinker.telemetry import worker

from . import chat, control, database, llm, user

start_check.install()
worker.install()
app.steps["worker"].update((SweeperStep, StopStep, worker.TelemetryStep))

__all__ = ["chat", "control", "database", "llm", "user"]
