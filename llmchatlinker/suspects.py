"""Suspects: a stage whose message comes again may be what ended the worker that had it before.

From its second start on a stage is counted in its row, before it begins; and it runs alone, so that a
crash takes no neighbour along. After as many starts as the setting ``starts`` says it is ended with
the code ``poisoned`` instead. A first delivery costs nothing but a look at the gate.

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
from typing import Any

from llmchatlinker.db.sessions import database
from llmchatlinker.dead_letters.rows import Letter, keep
from llmchatlinker.envelope import Stage
from llmchatlinker.errors import Poisoned
from llmchatlinker.orchestrator import announce
from llmchatlinker.outcomes import finalise
from llmchatlinker.settings import get_settings
from llmchatlinker.telemetry.notes import notes

logger = logging.getLogger(__name__)

#: Seconds that a third start waits for calls of providers to end.
PATIENCE = 10.0
#: Seconds: no worker crashes and starts again in so short a time, so a count that young is of another
#: delivery of the same stage, which is at work elsewhere.
YOUNG = 1.0
#: The state in which a row is when a stage is due, and the stage.
STAGES: dict[str, Stage] = {"submitted": "decode", "decoded": "execute", "executed": "store"}

#: How often it was begun, whether just now, and whether the ledger knows of a call: one that goes on,
#: or one whose worker died, where that is never made again.
_LOOK = """
    SELECT CASE WHEN starts_of = state THEN starts ELSE 0 END,
           published_at > clock_timestamp() - make_interval(secs => %(young)s),
           EXISTS (SELECT FROM attempts
                    WHERE instruction_id = instructions.id AND status = 'started'
                      AND (lease_until > clock_timestamp() OR %(once)s))
      FROM instructions WHERE id = %(id)s AND state = %(state)s
"""

#: Dated anew, so that the sweeper does not publish it meanwhile.
_COUNT = """
    UPDATE instructions
       SET starts = CASE WHEN starts_of = state THEN starts + 1 ELSE 2 END,
           starts_of = state, published_at = clock_timestamp()
     WHERE id = %(id)s AND state = %(state)s
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
    delivery = request.delivery_info or {}
    if not delivery.get("redelivered"):
        with gate.at_work(brief=brief):
            return work()
    settings = get_settings()
    once = settings.in_doubt != "retry"
    values = {"id": str(instruction_id), "state": state, "young": YOUNG, "once": once}
    found = database().statement(_LOOK, values)
    if not found or found[0][2]:
        # Done, or of no interest any longer; or the ledger knows better what has become of it.
        with gate.at_work(brief=brief):
            return work()
    if not brief and found[0][0] < 2:
        _count(values)
        with gate.at_work(brief=False):
            return work()
    with gate.alone(patience=PATIENCE if found[0][0] >= 2 else None):
        # Looked at once more: what was before this one may have been the same stage.
        found = database().statement(_LOOK, values)
        if found:
            starts, young, _ = found[0]
            if starts >= settings.starts and not young:
                _end(instruction_id, starts, STAGES[state], request)
                notes.outcome, notes.attempt = Poisoned.code, starts + 1
                return False
            _count(values)
        return work()


def _count(values: dict[str, Any]) -> None:
    for row in database().statement(_COUNT, values):
        notes.attempt = row[0]


def _end(instruction_id: uuid.UUID, starts: int, stage: Stage, request: Any) -> None:
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
    ending = finalise(instruction_id, Poisoned(details={"starts": starts}), stage)
    if ending is not None:
        announce(ending)
