"""The provider of a scenario: it answers as each prompt says, and counts its calls by prompt."""

from __future__ import annotations

import threading
from collections import Counter

from faults.plan import ANSWERED
from tests.servers.provider import Exchange, Request, Script, ScriptedProvider
from tests.servers.shapes import CHATS, Said, frames, is_streamed

LONG = 3_600.0
SLOW = 2.0


class CountingProvider(ScriptedProvider):
    """``calls_of``: how often each tag was asked for; ``open``: the tags that are being answered just
    now. Requests are not kept.

    A prompt is ``<tag> words=<n> pace=<seconds> [manner=<manner>]``. The manners: ``reset`` and
    ``stall`` in the middle of the answer, ``refuse`` (503, each time), ``hiccup`` (503 the first time),
    ``slow`` (two seconds before the first word).
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls_of: Counter[str] = Counter()
        self.open: Counter[str] = Counter()
        self._counting = threading.Lock()

    def next_script(self, request: Request) -> Script:
        """Count it, and answer as it says."""
        if request.path not in CHATS or request.method != "POST":
            return super().next_script(request)
        tag = request.question.split()[0]
        with self._counting:
            self.calls_of[tag] += 1
            call = self.calls_of[tag]
        return lambda exchange: self._answer(exchange, tag, call)

    def _answer(self, exchange: Exchange, tag: str, call: int) -> None:
        with self._counting:
            self.open[tag] += 1
        try:
            _answer(exchange, call)
        finally:
            with self._counting:
                self.open[tag] -= 1


def answer_to(prompt: str) -> str:
    """What the provider says to a prompt, if it says all of it."""
    tag, *rest = prompt.split()
    words = int(_options(rest).get("words", "2"))
    return " ".join([ANSWERED, tag, *(str(number) for number in range(words))])


def _options(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if "=" in word)


def _answer(exchange: Exchange, call: int) -> None:
    question = exchange.request.question
    options = _options(question.split()[1:])
    pace, manner = float(options.get("pace", 0.0)), options.get("manner")
    if manner == "refuse" or (manner == "hiccup" and call == 1):
        exchange.respond_json(503, {"error": {"message": "overloaded"}})
        return
    if manner == "slow":
        exchange.pause(SLOW)
    said = Said(answer_to(question))
    path, body = exchange.request.path, exchange.request.body
    if not is_streamed(path, body) or manner not in ("reset", "stall"):
        exchange.say(said, interval=pace)
        return
    exchange.start_stream()
    tokens = 0
    for frame in frames(path, body, said):
        if frame.is_token:
            exchange.pause(pace)
            tokens += 1
        if tokens == 3:
            break
        exchange.write(frame.data)
    if manner == "reset":
        exchange.hang_up(reset=True)
    else:
        exchange.pause(LONG)
