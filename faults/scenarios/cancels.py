"""Generations revoked and cancelled at every stage (``aim.py``): what must come of it, did."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from faults import aim
from faults.plan import Plan, Size, Step, Track, prompt
from faults.scenario import Scenario
from faults.world import Round, World

WAYS = ("cancel", "revoke")
EACH = 25
#: In a round each stage is aimed at so many times, each way; one chat more keeps the narrow LLM busy.
A_ROUND = 5
CHATS = 1 + A_ROUND * len(WAYS) * len(aim.STAGES)
#: How a turn is answered so that it is at its stage for a while: its words, their pace, and more.
MANNERS: dict[str, tuple[int, float, str]] = {
    "before decode": (4, 0.0, "hold=submitted"),
    "as a queued turn": (4, 0.0, ""),
    "parked": (4, 0.0, ""),
    "in its call": (4, 0.0, "manner=slow"),
    "in mid-stream": (24, 0.2, ""),
    "executed": (4, 0.0, "hold=executed"),
    "final": (4, 0.0, ""),
}
#: The turn that others wait for: three seconds.
BEFORE = (30, 0.1, "")
#: Where the row can't go on before the cancel has been taken, nothing else may come of it.
SURE = ("before decode", "executed", "final")


def aimed(plan: Plan, _: random.Random) -> Plan:
    """Each chat has a turn that is cancelled, at the next of the stages; what is to be before it is."""
    tracks = []
    chats = [track for track in plan.tracks if track.chat_id is not None]
    names = list(aim.STAGES)
    for number, track in enumerate(chats):
        first = track.steps[0]
        if number == 0:
            steps = [_turn(first, BEFORE, llm_id=plan.narrow_llm_id)]
        else:
            name = names[(number - 1) % len(names)]
            how = WAYS[(number - 1) // len(names) % len(WAYS)]
            steps = [_turn(first, BEFORE)] if name == "as a queued turn" else []
            more = {"llm_id": plan.narrow_llm_id} if name == "parked" else {}
            last = replace(
                first, tag=f"{first.tag}-x", pause=0.5
            )  # behind the busy LLM's first call
            steps.append(replace(_turn(last, MANNERS[name], **more), cancel=(how, name)))
        tracks.append(Track(steps, track.chat_id))
    others = [track for track in plan.tracks if track.chat_id is None]
    return replace(plan, tracks=[*tracks, *others])


def _turn(step: Step, manner: tuple[int, float, str], **data: int) -> Step:
    text = prompt(step.tag, *manner)
    return replace(step, data=step.data | {"user_input": text} | data)


def give_cues(world: World, _: random.Random) -> Counter[str]:
    """The clients do it themselves, when they get their cue."""
    aim.cancel_all(world)
    return Counter()


def count(world: World, done: Round) -> str:
    """Empty, or what is wrong."""
    hits, misses = aim.hits_and_misses(world)
    done.faults += hits
    done.faults["elsewhere than aimed"] += len(misses)
    wrong = [miss for miss in misses if any(f" {name}:" in miss for name in SURE)]
    return "; ".join(wrong)


SCENARIOS = (
    Scenario(
        "cancel",
        EACH // A_ROUND,
        give_cues,
        Size(chats=CHATS, turns=1, ordinary=5, spread=0.5),
        allowed=("cancelled",),
        # What is held, and what others wait for, shall not take all slots.
        concurrency=CHATS // 2,
        change=aimed,
        after=count,
        goals={f"{how} {name}": EACH for how in WAYS for name in aim.STAGES},
    ),
)
