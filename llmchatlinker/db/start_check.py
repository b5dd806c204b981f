"""A worker that does not go together with the database's schema does not start, and says why."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import signals

from llmchatlinker.db.schema import check_schema
from llmchatlinker.errors import ConfigurationError, Unavailable

logger = logging.getLogger(__name__)


def install() -> None:
    """Look when a worker starts, before it takes its first message."""
    signals.worker_init.connect(_check, weak=False, dispatch_uid="llmchatlinker-schema")


def _check(**_: Any) -> None:
    try:
        check_schema()
    except ConfigurationError as error:
        # Celery catches whatever else a signal's receiver raises.
        sys.exit(f"This worker can't start: {error.message}")
    except Unavailable as error:
        logger.warning("%s The worker waits for it.", error.message)
