"""A client process: ``python -m faults.client``. It reads an order per line and writes what it sees.

An order is ``{"tracks": [[step, …], …], "patience": seconds}``. Each track has a thread that submits;
each accepted instruction one that waits. What it writes, a JSON line each, is what its users would
remember: that a tag was accepted or refused, its envelope, what its stream said; and ``{"done": true}``.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from llmchatlinker.client import LLMChatLinkerClient
from llmchatlinker.errors import LLMChatLinkerError, ResultTimeout, Unavailable
from llmchatlinker.results.wakeups import wakeups
from llmchatlinker.streaming.responses import ResponseStream

Line = dict[str, Any]
AGAIN = 0.5  # seconds before what was not available is asked again
GRACE = 5.0  # seconds that threads get beyond the patience

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
            while not self._try(step) and time.monotonic() < self._end:
                time.sleep(AGAIN)

    def _try(self, step: Line) -> bool:
        """Submit it; False when it was refused, and may be submitted again."""
        try:
            self._submit(step)
        except LLMChatLinkerError as error:
            known = error.details.get("instruction_id")
            tell(tag=step["tag"], refused=error.code, id=known)
            if known is None:
                return False
            self._start(self._wait, step, known)  # it may run, so it is not submitted once more
        except Exception as error:
            tell(tag=step["tag"], defect=f"submit: {type(error).__name__}: {error}")
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
        envelope = self._get(step, known)
        if envelope is not None:
            tell(tag=step["tag"], envelope=envelope)

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
        how, after = step["cancel"]
        time.sleep(after)
        try:
            if how == "revoke":
                self._client.result(known).revoke()
            else:
                self._client.cancel(known)
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
        if "reply_to" in order:
            tell(reply_to=wakeups().reply_to())
            continue
        if "run" in order:
            tell(envelope=client.run(order["run"], **order["data"]))
            continue
        Round(client, order["patience"]).run(order["tracks"])
        tell(done=True)


if __name__ == "__main__":
    main()
