"""The Celery tasks, thin: a module per unit and queue.

Loaded by workers only, from beside the package (``llmchatlinker/celery_app.py``).
"""

from llmchatlinker.celery_app import app
from llmchatlinker.sweeper import SweeperStep

from . import chat, control, database, llm, user

app.steps["worker"].add(SweeperStep)

__all__ = ["chat", "control", "database", "llm", "user"]
