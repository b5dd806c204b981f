"""Setting up the process: which servers it talks to."""

from __future__ import annotations

from llmchatlinker.celery_app import app
from llmchatlinker.db.sessions import use_database
from llmchatlinker.results import hints
from llmchatlinker.results.wakeups import forget_wakeups
from llmchatlinker.settings import Settings, use_settings


def configure(settings: Settings | None) -> None:
    """Use these settings from now on; ``None``: those of the environment, read anew.

    For programs that don't want to be set up by their environment, before or between uses.
    """
    forget_wakeups()
    use_settings(settings)
    use_database(None)
    app.reconnect()
    hints.reconnect()
