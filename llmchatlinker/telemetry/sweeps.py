"""What the sweeper of this process has done so far, for its metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

#: Rounds by outcome: ``done``, ``failed``, or ``idle`` where there was nothing to do here.
rounds: Counter[str] = Counter()
#: Seconds at work.
seconds = 0.0
#: What was done, by kind; dead letters by what became of them; failed duties by name.
done: Counter[str] = Counter()
letters: Counter[str] = Counter()
failures: Counter[str] = Counter()

LETTERS = "dead letters "


def note_round(did: Mapping[str, int] | None, took: float) -> None:
    """A round has ended; ``did``: what ``sweep`` returned, None where it raised."""
    global seconds
    seconds += took
    if did is None:
        rounds["failed"] += 1
        return
    rounds["done" if any(did.values()) else "idle"] += 1
    for kind, count in did.items():
        if kind.startswith(LETTERS):
            letters[kind.removeprefix(LETTERS)] += count
        else:
            done[kind.replace(" ", "_")] += count
