"""The SDK: one method per instruction (``client_methods.py``), each returning the envelope as a dict.

A wrong argument comes back as an error envelope, as from everywhere else; only what keeps an
instruction from being submitted at all is raised: Unavailable when a server can't be reached.

An HTTP gateway or a chat page sits on this class, or on the one of ``async_client.py``, and on
nothing below it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from llmchatlinker.client_methods import InstructionMethods, refusal, split
from llmchatlinker.envelope import Envelope
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType
from llmchatlinker.message_queue import run
from llmchatlinker.orchestrator import submit
from llmchatlinker.results.result import InstructionResult
from llmchatlinker.streaming.responses import ResponseStream, follow, submit_stream


class LLMChatLinkerClient(InstructionMethods[Envelope]):
    """Submits instructions and waits for their envelopes. Safe to share between threads."""

    def submit(self, type: str | InstructionType, /, **arguments: Any) -> InstructionResult:
        """Submit and return at once; ``.get()`` of what comes back waits for the envelope."""
        name, data, beside = split(type, arguments)
        return InstructionResult(submit(name, data, **beside))

    def run(self, type: str | InstructionType, /, **arguments: Any) -> Envelope:
        """Submit, wait, and return the envelope."""
        name, data, beside = split(type, arguments)
        try:
            return run(name, data, **beside)
        except LLMChatLinkerError as error:
            return refusal(error)

    def result(self, instruction_id: str) -> InstructionResult:
        """The result of an instruction that anybody submitted."""
        return InstructionResult(instruction_id)

    def pages(self, type: str | InstructionType, /, **arguments: Any) -> Iterator[Envelope]:
        """The envelopes of a list or an export, page after page; ends after one that failed."""
        after: Any = arguments.pop("after", None)
        while True:
            envelope = self.run(type, after=after, **arguments)
            yield envelope
            after = envelope["data"].get("next")
            if after is None:
                return

    def stream(
        self,
        *,
        user_id: int | None = None,
        chat_id: int | None = None,
        llm_id: int | None = None,
        user_input: str | list[Any] | None = None,
        message_id: int | None = None,
        **more: Any,
    ) -> ResponseStream:
        """Generate an answer and yield its events as the LLM produces them.

        Takes what ``generate_llm_response`` takes, by keyword; with ``message_id``, what
        ``regenerate_llm_response`` takes. Submits at once, and raises what ``submit`` raises; what is
        refused later comes as the event ``response.failed``.
        """
        some = threading.Event()
        asked = {"user_id": user_id, "chat_id": chat_id, "llm_id": llm_id, "user_input": user_input}
        return ResponseStream(
            submit_stream(asked | {"message_id": message_id} | more, some.set), some
        )

    def follow(
        self, instruction_id: str, *, starting_after: int = 0, snapshot: bool = False
    ) -> ResponseStream:
        """The events of a generation that anybody submitted: during it or after, from any process.

        ``starting_after``: the number of the last event that is known already. ``snapshot``: what
        there is by now comes as one event, ``response.snapshot``. Raises NotFound for an id of nobody,
        InvalidData for what is no generation, and Unavailable when PostgreSQL can't be reached.
        """
        some = threading.Event()
        follower = follow(instruction_id, some.set, after=starting_after, snapshot=snapshot)
        return ResponseStream(follower, some).opened()
