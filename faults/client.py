"""A client process: ``python -m faults.client``. It reads an order per line and writes what it sees.

An order is ``{"tracks": [[step, …], …], "patience": seconds}``. Each track has a thread that submits;
each accepted instruction one that waits. What it writes, a JSON line each, is what its users would
remember: that a tag was accepted or refused, its envelope, what its stream said; and ``{"done": true}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import LLMChatLinkerError, ResultTimeout, Unavailable
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.streaming.following import following
from llmchatlinker.streaming.responses import ResponseStream

Line = dict[str, Any]
AGAIN = 0.5  # seconds before what was not available is asked again
GRACE = 5.0  # seconds that threads get beyond the patience
#: The variable that names the folder of cues: a file there, of a tag's name, says that it is to be
#: cancelled now.
CUES = "FAULTS_CUES"
CUE_LOOK = 0.01  # seconds between two looks for one
#: Instructions that a round may have under way: who submits the next one waits.
MOST = 400

_writing = threading.Lock()


def tell(**line: Any) -> None:
    """One line to the harness."""
    text = json.dumps(line)
    with _writing:
        print(text, flush=True)


class Round:
    """The submissions of one order."""

    def __init__(self, client: LLMChatLinkerClient, patience: float) -> None:
        self._client = client
        self._end = time.monotonic() + patience
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._room = threading.Semaphore(MOST)

    def run(self, tracks: list[list[Line]]) -> None:
        """All of it; returns when everything has its envelope, or patience is over."""
        for track in tracks:
            self._start(self._submit_all, track)
        while True:
            with self._lock:
                if not self._threads:
                    return
                thread = self._threads.pop(0)
            thread.join(max(0.0, self._end - time.monotonic()) + GRACE)
            if thread.is_alive():
                tell(defect=f"{thread.name} does not end")

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        name = work.__name__.strip("_")
        thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _submit_all(self, track: list[Line]) -> None:
        for step in track:
            time.sleep(step["pause"])
            self._room.acquire()
            while not self._try(step) and time.monotonic() < self._end:
                time.sleep(AGAIN)

    def _try(self, step: Line) -> bool:
        """Submit it; False when it was refused, and may be submitted again."""
        try:
            self._submit(step)
        except LLMChatLinkerError as error:
            known = error.details.get("instruction_id")
            tell(tag=step["tag"], refused=error.code, id=known)
            if known is None or not self._is_there(step, known):
                return False
            self._start(self._wait, step, known)  # it runs, so it is not submitted once more
        except Exception as error:
            tell(tag=step["tag"], defect=f"submit: {type(error).__name__}: {error}")
        return True

    def _is_there(self, step: Line, known: str) -> bool:
        """Whether what may run all the same does: its row was committed, or it never was."""
        while time.monotonic() < self._end:
            result = self._client.result(known)
            try:
                if result.backend.task_result_exists(known):
                    return True
            except Unavailable:
                time.sleep(AGAIN)
            else:
                tell(tag=step["tag"], refused="unavailable", id=None)
                return False
        return True

    def _submit(self, step: Line) -> None:
        if step["stream"]:
            stream = self._client.stream(**step["data"])
            known = stream.instruction_id
            tell(tag=step["tag"], id=known)
            self._start(self._follow, step, stream)
        else:
            known = self._client.submit(step["type"], **step["data"]).id
            tell(tag=step["tag"], id=known)
        if step["cancel"] is not None:
            self._start(self._cancel, step, known)
        self._start(self._wait, step, known)

    def _wait(self, step: Line, known: str) -> None:
        began = time.monotonic()
        envelope = self._get(step, known)
        self._room.release()
        if envelope is not None:
            seconds = round(time.monotonic() - began, 2)
            tell(tag=step["tag"], envelope=envelope, seconds=seconds)

    def _get(self, step: Line, known: str) -> Any:
        while True:
            left = self._end - time.monotonic()
            try:
                return self._client.result(known).get(timeout=max(0.1, left))
            except Unavailable:
                if left < 0:
                    tell(tag=step["tag"], missing="unavailable")
                    return None
                time.sleep(AGAIN)
            except ResultTimeout:
                tell(tag=step["tag"], missing="timeout")
                return None
            except Exception as error:
                tell(tag=step["tag"], defect=f"get: {type(error).__name__}: {error}")
                return None

    def _follow(self, step: Line, stream: ResponseStream) -> None:
        numbers, text, last = [], "", None
        try:
            for event in stream:
                numbers.append(event.sequence_number)
                text += event.text
                last = event.type if event.is_last else None
        except Exception as error:
            tell(tag=step["tag"], defect=f"follow: {type(error).__name__}: {error}")
            return
        whole = numbers == list(range(1, len(numbers) + 1))
        tell(tag=step["tag"], stream={"whole": whole, "text": text, "last": last})

    def _cancel(self, step: Line, known: str) -> None:
        how, when = step["cancel"]
        if isinstance(when, str):
            cue = Path(os.environ[CUES], step["tag"])
            while not cue.exists() and time.monotonic() < self._end:
                time.sleep(CUE_LOOK)
        else:
            time.sleep(when)
        try:
            if how == "revoke":
                self._client.result(known).revoke()
            else:
                self._client.cancel(known)
            tell(tag=step["tag"], cancelled=True)
        except Unavailable:
            tell(tag=step["tag"], uncancelled=True)
        except Exception as error:
            tell(tag=step["tag"], defect=f"cancel: {type(error).__name__}: {error}")


def main() -> None:
    """Serve orders until the input ends."""
    client = LLMChatLinkerClient()
    tell(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "queues" in order:
            tell(queues=[wakeups().reply_to(), following().queue()])
            continue
        if "hints" in order:
            tell(hints=wakeups().counts["hints", ""])
            continue
        if "run" in order:
            tell(envelope=client.run(order["run"], **order["data"]))
            continue
        Round(client, order["patience"]).run(order["tracks"])
        tell(done=True)


if __name__ == "__main__":
    main()
