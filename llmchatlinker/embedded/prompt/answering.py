"""An answer as it comes: printed piece by piece, stopped by Ctrl-C, taken up again where it was lost."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Protocol

from llmchatlinker.embedded.prompt.screen import DIM, Screen
from llmchatlinker.embedded.prompt.showing import Showing
from llmchatlinker.errors import LLMChatLinkerError, Unavailable
from llmchatlinker.streaming.follower import ResponseEvent

#: Seconds for which a lost stream is looked for again, and between two tries.
PATIENCE = 60.0
PAUSE = 1.0


class Stream(Protocol):
    """What the client's ``stream`` and ``follow`` return."""

    @property
    def instruction_id(self) -> str:
        """For ``follow`` and ``cancel``."""

    def __iter__(self) -> Iterator[ResponseEvent]:
        """The events."""


class Client(Protocol):
    """As much of ``LLMChatLinkerClient`` as an answer needs."""

    def follow(self, instruction_id: str, *, starting_after: int = 0) -> Stream:
        """The events behind a number."""

    def cancel(self, instruction_id: str) -> Any:
        """End the generation."""


class Answering:
    """Shows one answer. ``pause``: seconds between two tries to find a lost stream again."""

    def __init__(self, client: Client, screen: Screen, pause: float = PAUSE) -> None:
        self._client = client
        self._screen = screen
        self._pause = pause
        self._showing = Showing(screen)
        #: What has come of it so far.
        self.answer = self._showing.answer

    def show(self, begin: Callable[[], Stream]) -> None:
        """Begin, and show what comes, to its end. Raises what ``begin`` raises, KeyboardInterrupt
        when Ctrl-C is pressed a second time, and Unavailable when it is lost for good.
        """
        with self._stoppable() as know:
            stream = begin()
            know(stream.instruction_id)
            try:
                for event in self._events(stream):
                    self._showing.take(event)
            finally:
                self._screen.end_line()

    # --- Ctrl-C ---------------------------------------------------------------------------------

    @contextmanager
    def _stoppable(self) -> Iterator[Callable[[str], None]]:
        """Ctrl-C cancels, as soon as the id is known; a second one is a KeyboardInterrupt.

        The signal interrupts nothing: an instruction that is just being submitted keeps its id, and
        the cancelled generation ends the stream by itself. A signal's handler may take no lock, so
        all that it does is a put, which is made for that.
        """
        pressed: queue.SimpleQueue[bool] = queue.SimpleQueue()
        known: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def press(number: int, frame: FrameType | None) -> None:
            if self.answer.stopped:
                raise KeyboardInterrupt
            self.answer.stopped = True
            pressed.put(True)

        def stop() -> None:
            instruction_id = known.get() if pressed.get() else None
            if instruction_id is None:
                return
            try:
                self._client.cancel(instruction_id)
            except LLMChatLinkerError as error:
                self._screen.failure(error)

        threading.Thread(target=stop, name="stop", daemon=True).start()
        before = signal.signal(signal.SIGINT, press)
        try:
            yield known.put
        finally:
            signal.signal(signal.SIGINT, before)
            pressed.put(False)
            known.put(None)

    # --- what comes -----------------------------------------------------------------------------

    def _events(self, stream: Stream) -> Iterator[ResponseEvent]:
        """The events to the last one; where the stream breaks off, those behind what has come."""
        instruction_id, last, lost_at = stream.instruction_id, 0, 0.0
        while True:
            lost = Unavailable("The answer broke off; /chats shows later what has come of it.")
            try:
                for event in stream:
                    last, lost_at = event.sequence_number, 0.0
                    yield event
                    if event.is_last:
                        return
            except Unavailable as error:
                lost = error
            if not lost_at:
                lost_at = time.monotonic()
                self._screen.line("(the connection was lost; looking for the rest)", DIM)
            stream = self._found(instruction_id, last, lost_at + PATIENCE, lost)

    def _found(self, instruction_id: str, last: int, deadline: float, lost: Unavailable) -> Stream:
        while time.monotonic() < deadline:
            time.sleep(self._pause)
            with suppress(Unavailable):
                return self._client.follow(instruction_id, starting_after=last)
        raise lost
