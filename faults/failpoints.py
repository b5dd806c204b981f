"""Points at which a worker kills itself, loaded into it with ``--include faults.failpoints``.

A point strikes when there is a file of its name in the folder ``FAULTS_FOLDER``: the first process that
comes by takes the file, so that one process dies of it, and kills itself with SIGKILL, between two
statements of the product that nothing from outside could hit.

A *hold* keeps stages from beginning for as long as there is a file of its name: those of instructions
whose prompt asks for it (``hold=executed``). So a cancel can be aimed at what lasts for milliseconds.

The functions are wrapped here, and the product has no hook for it.
"""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery.worker.request import Request

from llmchatlinker import provider_stage, stage_messages, stages, suspects
from llmchatlinker.db.sessions import database
from llmchatlinker.streaming.writer import Writer
from llmchatlinker.units import generation

MODULE = __name__
FOLDER = "FAULTS_FOLDER"

#: Where each one is, in the order in which an instruction comes by.
POINTS = {
    "before stage": "a message was taken, and nothing done",
    "after claim": "the ledger has the call, which was not made",
    "in mid-stream": "a delta was stored, and the answer goes on",
    "after answer": "the provider has answered, and nothing of the end is stored",
    "after commit": "the outcome of a generation or the claim of one is committed, nothing follows",
    "after stage": "a stage is committed and not handed on",
    "after publish": "it is handed on (or a turn behind it), and not acknowledged",
    "after final": "the id is final, and nobody was told",
    "before ack": "everything is done but the acknowledgement",
}


#: The states of a row in which a stage can be held, each with the name of its file.
HOLDS = {state: f"hold {state}" for state in ("submitted", "executed")}
HOLD_LOOK = 0.01  # seconds
_ASKS = "SELECT position(%(hold)s in data ->> 'user_input') > 0 FROM instructions WHERE id = %(id)s"


def hold(instruction_id: Any, state: str) -> None:
    """Wait here for as long as this state is held, if the instruction asks for it."""
    path = Path(os.environ[FOLDER], HOLDS.get(state, ""))
    if state not in HOLDS or not path.exists():
        return
    values = {"id": str(instruction_id), "hold": f"hold={state}"}
    if database().statement(_ASKS, values) == [(True,)]:
        while path.exists():
            time.sleep(HOLD_LOOK)


def strike(name: str) -> None:
    """Die here if this point is armed."""
    folder = os.environ[FOLDER]
    try:
        os.rename(Path(folder, name), Path(folder, f"{name}.{os.getpid()}"))
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: Any, attribute: str, *, before: str = "", after: str = "") -> None:
    function: Callable[..., Any] = getattr(owner, attribute)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            strike(before)
        result = function(*args, **kwargs)
        if after:
            strike(after)
        return result

    setattr(owner, attribute, wrapped)


def _wrap_claim() -> None:
    claim = provider_stage._claim

    @functools.wraps(claim)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        goes_on, work = claim(*args, **kwargs)
        if work is not None:
            strike("after claim")
        return goes_on, work

    provider_stage._claim = wrapped


def _wrap_run() -> None:
    run = suspects.run

    @functools.wraps(run)
    def wrapped(instruction_id: Any, state: str, *args: Any, **kwargs: Any) -> Any:
        hold(instruction_id, state)
        return run(instruction_id, state, *args, **kwargs)

    suspects.run = wrapped


if FOLDER in os.environ:
    _wrap_run()
    _wrap(suspects, "run", before="before stage", after="after stage")
    _wrap_claim()
    _wrap(Writer, "_flush", after="in mid-stream")
    _wrap(generation, "call_provider", after="after answer")
    _wrap(provider_stage, "follow", before="after commit")
    _wrap(stage_messages, "send", after="after publish")
    _wrap(stages, "finalise", after="after final")
    _wrap(Request, "acknowledge", before="before ack")
