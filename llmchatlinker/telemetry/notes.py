"""What a stage's work leaves behind for its line in the log and for its metrics: per thread.

A stage returns whether its chain goes on, and that says little. Whoever knows more writes it here;
the stage's task reads it at the end (``stages.py``). Writing costs an attribute of a thread.
"""

from __future__ import annotations

import threading
from typing import Any


class Notes(threading.local):
    """Of the stage that this thread is at, or of nothing in particular.

    ``outcome``: ``success``, a code of ``errors.py``, or one of ``OUTCOMES``. ``attempt``: which one,
    counted from 1.
    """

    type: str | None = None
    outcome: str | None = None
    attempt: int = 1

    def begin(self, type: str | None, attempt: int) -> None:
        """A stage begins."""
        self.type, self.outcome, self.attempt = type, None, attempt


#: How a stage may end beside ``success`` and the codes of errors:
OUTCOMES = {
    "waiting": "parked: it goes on when what it waits for has ended",
    "repeated": "delivered once more, after its work was done",
    "dropped": "nothing to do: withdrawn, parked, of another type, or in another worker's hands",
    "failed": "a defect, or a server was gone: Celery or the sweeper goes on from there",
}

notes = Notes()


def note_handled(what: Any) -> None:
    """What a ``ProviderHandler``'s claim or settle has come to (``units/handling.py``)."""
    from llmchatlinker.units.handling import Ended, Held, Parked

    if isinstance(what, Ended):
        notes.outcome = "success" if what.error is None else what.error.code
    elif isinstance(what, Parked):
        notes.outcome = "waiting"
    elif what is None or isinstance(what, Held):
        notes.outcome = "dropped"
