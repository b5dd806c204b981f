"""A worker that waits for the end of what it cancels, however long. Workers ``--include`` it."""

from __future__ import annotations

import sys

from llmchatlinker.units import cancelling

MODULE = __name__
PATIENCE = 60.0  # seconds

# Only in a worker that names this module: tests import it for its name alone.
if any(MODULE in argument for argument in sys.argv):
    cancelling.PATIENCE = PATIENCE
