"""The Celery tasks, thin: a module per unit and queue.

Loaded by workers only, from beside the package (``llmchatlinker/celery_app.py``).
"""

from . import chat, control, database, llm, user

__all__ = ["chat", "control", "database", "llm", "user"]
