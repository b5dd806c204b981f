"""What clients submit in a round, drawn from the round's seed: who, what, in which order, when."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import Any

#: Words of an answer, and seconds before each of them: a call takes a second or so.
WORDS = 12
PACE = 0.06

ANSWERED = "You said:"
#: The prompt of the turn with which a round ends.
PROBE = "probe"


@dataclass(frozen=True)
class Step:
    """One submission. ``tag``: its name, which is in its title or prompt and nowhere else.

    ``pause``: seconds before it. ``stream``: the client follows the response. ``cancel``: how it is
    cancelled, and when: ``("revoke", 0.5)`` after so many seconds, ``("cancel", "in its call")`` at that
    stage, for which the client waits for a cue.
    """

    tag: str
    type: str
    data: dict[str, Any]
    pause: float = 0.0
    stream: bool = False
    cancel: tuple[str, float | str] | None = None


@dataclass(frozen=True)
class Track:
    """Steps in the order in which one thread submits them; those of a chat are on one track."""

    steps: list[Step]
    chat_id: int | None = None


@dataclass(frozen=True)
class Plan:
    """A round's submissions. ``narrow_llm_id``: an LLM that is called once at a time."""

    tracks: list[Track] = field(default_factory=list)
    narrow_llm_id: int = 0

    @property
    def steps(self) -> list[Step]:
        """All of them."""
        return [step for track in self.tracks for step in track.steps]

    def as_order(self) -> list[list[dict[str, Any]]]:
        """As the client process reads it."""
        return [[asdict(step) for step in track.steps] for track in self.tracks]


@dataclass(frozen=True)
class Scene:
    """Who there is: a user, an LLM and a narrow one, and chats for this round alone."""

    user_id: int
    llm_id: int
    narrow_llm_id: int
    chat_ids: tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """How much there is in a round. ``spread``: seconds within which it is submitted, if the client gets
    that far; ``threads``: that submit what is no turn.
    """

    chats: int = 3
    turns: int = 3
    ordinary: int = 6
    spread: float = 3.0
    threads: int = 1


def prompt(tag: str, words: int = WORDS, pace: float = PACE, manner: str = "") -> str:
    """A prompt that says how it is answered; ``provider.py`` reads it."""
    return f"{tag} words={words} pace={pace} {manner}".rstrip()


def draw(rng: random.Random, name: str, scene: Scene, size: Size, *manners: str) -> Plan:
    """A plan. ``manners``: how the provider behaves, one of them drawn for each turn."""
    tracks = []
    data: dict[str, Any]
    for chat, chat_id in enumerate(scene.chat_ids):
        steps = []
        for turn in range(size.turns):
            tag = f"{name}-c{chat}-t{turn}"
            text = prompt(
                tag,
                rng.randint(2, 2 * WORDS),
                rng.choice((0.0, PACE / 2, PACE)),
                rng.choice(manners or ("",)),
            )
            data = {"user_id": scene.user_id, "chat_id": chat_id, "llm_id": scene.llm_id}
            pause = rng.uniform(0, size.spread / size.turns)
            data["user_input"] = text
            kind = "LLM_RESPONSE_GENERATE"
            steps.append(Step(tag, kind, data, pause, stream=rng.random() < 0.5))
        tracks.append(Track(steps, chat_id))
    pause = size.spread * size.threads / max(1, size.ordinary)
    for thread in range(size.threads):
        steps = []
        for number in range(thread, size.ordinary, size.threads):
            tag = f"{name}-o{number}"
            data = {"title": tag, "user_ids": [scene.user_id]}
            steps.append(Step(tag, "CHAT_CREATE", data, rng.uniform(0, pause)))
        tracks.append(Track(steps))
    return Plan(tracks, scene.narrow_llm_id)
