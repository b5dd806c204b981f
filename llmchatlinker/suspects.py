"""Suspects: a stage whose message comes again may be what ended the worker that had it before.

From its second start on a stage is counted in its row, before it begins; and it runs alone, so that a
crash takes no neighbour along. After as many starts as the setting ``starts`` says it is ended with
the code ``poisoned`` instead. A first delivery costs nothing but a look at the gate.

A message comes again when the broker says so, or the sweeper, which marks what it publishes anew. The
broker gives what a dead worker had to another one at once, so a count may be of the moment: then
whoever would end the stage waits first, for somebody may be at it.

What "alone" means is a matter of degree, because a call of a provider may take minutes:

* a stage of milliseconds, at its second start: no other such stage is at work in this process;
* a generation, at its second start: with the others. After the death of a worker hundreds of them come
  again, of which most have never begun. One that died in its call is ended by the ledger, as in doubt;
* whatever comes to a third start: nothing else begins in this process, and calls under way are given
  ``PATIENCE`` seconds to end.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NamedTuple

from llmchatlinker.db.sessions import database
from llmchatlinker.dead_letters.rows import Letter, keep
from llmchatlinker.envelope import Stage
from llmchatlinker.errors import Poisoned
from llmchatlinker.orchestrator import announce
from llmchatlinker.outcomes import finalise
from llmchatlinker.settings import get_settings
from llmchatlinker.stage_messages import AGAIN
from llmchatlinker.telemetry.notes import notes

logger = logging.getLogger(__name__)

#: Seconds that a third start waits for calls of providers to end.
PATIENCE = 10.0
#: Seconds after which nobody is at a brief stage any longer that was begun. What takes longer is under
#: a lease, or gives a sign of life several times in the length of one (``leases.py``).
YOUNG = 4.0
#: The state in which a row is when a stage is due, and the stage.
STAGES: dict[str, Stage] = {"submitted": "decode", "decoded": "execute", "executed": "store"}

#: How often it was begun, for how many seconds somebody may be at it still, and whether the ledger
#: knows of a call: one that goes on, or one whose worker died, where that is never made again.
_LOOK = """
    SELECT CASE WHEN starts_of = state THEN starts ELSE 0 END,
           coalesce(extract(epoch FROM started_at - clock_timestamp()) + %(young)s, 0.0),
           EXISTS (SELECT FROM attempts
                    WHERE instruction_id = instructions.id AND status = 'started'
                      AND (lease_until > clock_timestamp() OR %(once)s))
      FROM instructions WHERE id = %(id)s AND state = %(state)s
"""

#: Dated anew, so that the sweeper does not publish it meanwhile. Of two at once that would begin it for
#: the last time, the second begins it no more.
_COUNT = """
    UPDATE instructions
       SET starts = CASE WHEN starts_of = state THEN starts + 1 ELSE 2 END,
           starts_of = state, started_at = clock_timestamp(), published_at = clock_timestamp()
     WHERE id = %(id)s AND state = %(state)s
       AND (starts_of IS DISTINCT FROM state OR starts < %(limit)s)
    RETURNING starts
"""


class Gate:
    """Who is at work in this process. Whoever must be alone waits for the others, and they for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._brief = _AtWork(self, brief=True)
        self._long = _AtWork(self, brief=False)
        self._lone: str | None = None

    def at_work(self, *, brief: bool) -> _AtWork:
        """A context: an ordinary stage is at work. ``brief``: it waits for no provider."""
        return self._brief if brief else self._long

    @contextmanager
    def alone(self, *, patience: float | None) -> Iterator[None]:
        """A context: no other brief stage is at work; one lone stage at a time.

        ``patience``: seconds to wait for long ones, too, which don't begin meanwhile; None: beside them.
        """
        with self._changed:
            while self._lone is not None:
                self._changed.wait()
            self._lone = "among the brief" if patience is None else "among all"
            end = time.monotonic() + (patience or 0.0)
            while self._brief.count or (self._long.count and time.monotonic() < end):
                self._changed.wait(None if self._brief.count else end - time.monotonic())
        try:
            yield
        finally:
            with self._changed:
                self._lone = None
                self._changed.notify_all()


class _AtWork:
    """Lets stages of one kind in, and counts them."""

    def __init__(self, gate: Gate, *, brief: bool) -> None:
        self.count = 0
        self._gate = gate
        self._brief = brief

    def __enter__(self) -> None:
        gate = self._gate
        with gate._changed:
            while gate._lone is not None and (self._brief or gate._lone == "among all"):
                gate._changed.wait()
            self.count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gate = self._gate
        with gate._changed:
            self.count -= 1
            if gate._lone is not None:
                gate._changed.notify_all()


gate = Gate()


def run(
    instruction_id: uuid.UUID,
    state: str,
    work: Callable[[], bool],
    request: Any,
    *,
    brief: bool,
) -> bool:
    """Run a stage that is due in ``state``, as a suspect where its message comes again.

    ``request``: Celery's, of the task. ``brief``: the stage waits for no provider. Returns what
    ``work`` does: whether the chain goes on.
    """
    if not comes_again(request):
        with gate.at_work(brief=brief):
            return work()
    settings = get_settings()
    values = {
        "id": str(instruction_id),
        "state": state,
        "young": YOUNG if brief else settings.lease,
        "once": settings.in_doubt != "retry",
        "limit": settings.starts,
    }
    starts = _starts(values)
    if starts is not None and starts < settings.starts:
        patience = PATIENCE if starts >= 2 else None
        ordinary = not brief and patience is None
        with gate.at_work(brief=False) if ordinary else gate.alone(patience=patience):
            # Looked at once more: what was before this one may have been the same stage.
            if _count(values) or not _is_at_its_limit(values):
                return work()
    elif starts is not None and _is_left(values):
        _end(instruction_id, starts, STAGES[state], request)
        notes.outcome, notes.attempt = Poisoned.code, starts + 1
        return False
    else:
        # Done, or of no interest any longer; in the ledger, which knows better; or somebody is at it.
        with gate.at_work(brief=brief):
            return work()
    return run(instruction_id, state, work, request, brief=brief)


def comes_again(request: Any) -> bool:
    """Whether the stage may have been begun before: its message was redelivered, or published anew."""
    redelivered = (request.delivery_info or {}).get("redelivered")
    return bool(redelivered) or request.get(AGAIN) is True


class _Seen(NamedTuple):
    """What ``_LOOK`` has found. ``seconds``: for so long somebody may be at it still."""

    starts: int
    seconds: float
    is_called: bool


def _look(values: dict[str, Any]) -> _Seen | None:
    """None where the stage is not due, or is the ledger's to judge."""
    for row in database().statement(_LOOK, values):
        seen = _Seen(row[0], float(row[1]), row[2])
        return None if seen.is_called else seen
    return None


def _starts(values: dict[str, Any]) -> int | None:
    seen = _look(values)
    return None if seen is None else seen.starts


def _is_at_its_limit(values: dict[str, Any]) -> bool:
    starts = _starts(values)
    return starts is not None and starts >= values["limit"]


def _is_left(values: dict[str, Any]) -> bool:
    """Whether a stage that was begun too often is nobody's: the last who began it has had his time."""
    seen = _look(values)
    if seen is not None and seen.seconds > 0:
        threading.Event().wait(seen.seconds)
        seen = _look(values)
    return seen is not None and seen.starts >= values["limit"] and seen.seconds <= 0


def _count(values: dict[str, Any]) -> bool:
    """Count a start that is about to be; False where it must not be."""
    for row in database().statement(_COUNT, values):
        notes.attempt = row[0]
        return True
    return False


def _end(instruction_id: uuid.UUID, starts: int, stage: Stage, request: Any) -> None:
    ending = finalise(instruction_id, Poisoned(details={"starts": starts}), stage)
    if ending is None or ending.code != Poisoned.code:
        return  # it has come to another end just now
    logger.error(
        "Instruction %s: %s was begun %d times, and is poison", instruction_id, stage, starts
    )
    keep(
        Letter(
            queue=(request.delivery_info or {}).get("routing_key"),
            reason="poisoned",
            task=request.task,
            instruction_id=instruction_id,
        ),
        "closed",
    )
    announce(ending)
