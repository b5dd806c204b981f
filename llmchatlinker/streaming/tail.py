"""What a stream's writer had not stored when it let go of the stream."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Tail:
    """``first``: the number of the first of ``events``, or of the next one where there is none.

    ``stored_deltas``: some delta of the attempt is stored, or may be. ``cuts``: where rows that are
    perhaps stored end, as places in ``events``.
    """

    first: int
    events: list[dict[str, Any]] = field(repr=False)
    stored_deltas: bool
    cuts: tuple[int, ...] = ()
