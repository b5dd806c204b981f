"""Cancels aimed at a stage: each is asked for when its instruction is seen to be there, and counted.

What lasts for milliseconds is held (``failpoints.HOLDS``), so that the row can't have gone on before the
cancel has been taken. What must come of it is in STAGES; whether it does is judged by ``missed``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from faults import failpoints
from faults.journal import Memory
from faults.plan import Step
from faults.world import World

PATIENCE = 120.0  # seconds until everything aimed at is there; some are usual
LOOK = 0.02

_SEEN = """
    SELECT split_part(data ->> 'user_input', ' ', 1), state, coalesce(wait_reason, ''),
           EXISTS (SELECT FROM attempts WHERE instruction_id = instructions.id),
           EXISTS (SELECT FROM attempts
                    WHERE instruction_id = instructions.id AND first_delta_at IS NOT NULL)
      FROM instructions
     WHERE split_part(data ->> 'user_input', ' ', 1) = ANY (%s)
"""


@dataclass(frozen=True)
class Seen:
    """An instruction as it was just now. ``is_open``: the provider is answering it."""

    state: str
    reason: str
    called: bool
    said: bool
    is_open: bool


@dataclass(frozen=True)
class Stage:
    """``there``: whether an instruction is at it; ``end``: its code, and whether it has a text and a
    call; ``holds``: the state in which it is held until the cancel has been taken.
    """

    there: Callable[[Seen], bool]
    end: tuple[str, bool, bool]
    holds: str = ""


CANCELLED = ("cancelled", False, False)
DONE = ("success", True, True)
#: By name, in the order in which an instruction comes by.
STAGES: dict[str, Stage] = {
    "before decode": Stage(lambda s: s.state == "submitted", CANCELLED, "submitted"),
    "as a queued turn": Stage(lambda s: (s.state, s.reason) == ("waiting", "turn"), CANCELLED),
    "parked": Stage(lambda s: (s.state, s.reason) == ("waiting", "llm"), CANCELLED),
    "in its call": Stage(lambda s: s.is_open and not s.said, ("cancelled", False, True)),
    "in mid-stream": Stage(lambda s: s.is_open and s.said, ("cancelled", True, True)),
    "executed": Stage(lambda s: s.state == "executed", DONE, "executed"),
    "final": Stage(lambda s: s.state == "final", DONE),
}


def cancel_all(world: World) -> None:
    """Give each aimed step of the round its cue; returns when the client has asked for every one.

    What is held is let go when all of that state are asked for. After PATIENCE the rest is cancelled
    wherever it is: ``hits_and_misses`` tells.
    """
    aimed = {step.tag: step for step in world.plan.steps if _stage_of(step) is not None}
    held = {STAGES[_stage(step)].holds for step in aimed.values()} - {""}
    for state in held:
        (world.folder / failpoints.HOLDS[state]).touch()
    end = time.monotonic() + PATIENCE
    cued: set[str] = set()
    while True:
        now = _seen(world, list(aimed))
        for tag in aimed.keys() - cued:
            if tag in now and STAGES[_stage(aimed[tag])].there(now[tag]):
                (world.cues / tag).touch()
                cued.add(tag)
        open_ = [tag for tag in aimed if not world.journal.of(tag).cancelled]
        for state in {s for s in held if _none_of(s, aimed, open_)}:
            (world.folder / failpoints.HOLDS[state]).unlink()
            held.discard(state)
        if not open_:
            return
        if time.monotonic() > end:
            for state in held:
                (world.folder / failpoints.HOLDS[state]).unlink()
            for tag in aimed.keys() - cued:
                (world.cues / tag).touch()
            return
        time.sleep(LOOK)


def outcome(step: Step, memory: Memory, calls: int) -> tuple[str, bool, bool]:
    """How it ended, to be compared with a stage's ``end``."""
    response = memory.envelopes[0]["data"].get("llm_response") or {} if memory.envelopes else {}
    return memory.code or "none", bool(response.get("content")), calls > 0


def hits_and_misses(world: World) -> tuple[Counter[str], list[str]]:
    """How often each stage was hit in the round, by the way of cancelling; sentences on the others."""
    hits: Counter[str] = Counter()
    misses = []
    for step in world.plan.steps:
        if _stage_of(step) is None:
            continue
        assert step.cancel is not None
        how, name = step.cancel[0], _stage(step)
        found = outcome(step, world.journal.of(step.tag), world.provider.calls_of[step.tag])
        if found == STAGES[name].end:
            hits[f"{how} {name}"] += 1
        else:
            misses.append(f"{step.tag}, {how} {name}: {found}")
    return hits, misses


def _stage_of(step: Step) -> str | None:
    when = None if step.cancel is None else step.cancel[1]
    return when if isinstance(when, str) else None


def _stage(step: Step) -> str:
    name = _stage_of(step)
    assert name is not None
    return name


def _none_of(state: str, aimed: dict[str, Step], tags: list[str]) -> bool:
    return not any(STAGES[_stage(aimed[tag])].holds == state for tag in tags)


def _seen(world: World, tags: list[str]) -> dict[str, Seen]:
    return {
        tag: Seen(state, reason, called, said, world.provider.open[tag] > 0)
        for tag, state, reason, called, said in world.place.sql(_SEEN, tags)
    }
