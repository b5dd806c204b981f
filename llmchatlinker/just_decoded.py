"""What this process decoded a moment ago, so that execute need not ask PostgreSQL for it again.

For instructions that change nothing. What has become of one meanwhile is seen where its outcome is
written, by compare-and-set; and the data says what is to be looked up, not what is found.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any, NamedTuple

#: So many are kept, and for so many seconds. None that has fewer seconds left than that.
KEPT, KEPT_SECONDS = 1_000, 1.0


class Decoded(NamedTuple):
    """The type and the data of a row, at a moment of the monotonic clock."""

    type: str
    data: Any
    at: float


class JustDecoded:
    """The newest of them, by id. Without a lock: each step of it is one of a dictionary."""

    def __init__(self) -> None:
        self._decoded: OrderedDict[str, Decoded] = OrderedDict()

    def remember(self, text: str, type_name: str, data: Any, seconds_left: float) -> None:
        """This row is ``decoded`` now, with so many seconds until its deadline."""
        if seconds_left > KEPT_SECONDS:
            self._decoded[text] = Decoded(type_name, data, time.monotonic())
            if len(self._decoded) > KEPT:
                self._decoded.popitem(last=False)

    def take(self, text: str) -> Decoded | None:
        """It, once, if that was just now."""
        found = self._decoded.pop(text, None)
        if found is None or time.monotonic() - found.at > KEPT_SECONDS:
            return None
        return found


just_decoded = JustDecoded()
