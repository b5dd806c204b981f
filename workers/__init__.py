"""The Celery tasks, thin: a module per unit and queue.

Loaded by workers only, from beside the package (``llmchatlinker/celery_app.py``).
"""

import logging

from llmchatlinker.celery_app import app
from llmchatlinker.stopping import StopStep
from llmchatlinker.sweeper import SweeperStep

from . import chat, control, database, llm, user

# One line per stage is enough: when it has ended, and not when it was received as well.
logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
app.steps["worker"].update((SweeperStep, StopStep))

__all__ = ["chat", "control", "database", "llm", "user"]
