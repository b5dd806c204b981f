"""Whether this process counts. Apart from the metrics, so that who never counts loads none."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmchatlinker.telemetry.metrics import Metrics

_current: Metrics | None = None
_switching = threading.Lock()


def metrics() -> Metrics | None:
    """The process's counters; None where nobody asked for any."""
    return _current


def switch_on() -> Metrics:
    """Count from now on."""
    global _current
    from llmchatlinker.telemetry.metrics import Metrics

    with _switching:
        if _current is None:
            _current = Metrics()
        return _current


def switch_off() -> None:
    """Count no longer, and forget what was counted."""
    global _current
    _current = None


def _after_fork() -> None:
    """A child starts at nothing, and nobody knows what its parent's locks were held for."""
    global _current, _switching
    _switching = threading.Lock()
    if _current is not None:
        _current = None
        switch_on()


os.register_at_fork(after_in_child=_after_fork)
