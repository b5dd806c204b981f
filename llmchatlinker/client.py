"""The SDK: one method per instruction (``client_methods.py``), each returning the envelope as a dict.

A wrong argument comes back as an error envelope, as from everywhere else; only what keeps an
instruction from being submitted at all is raised: Unavailable when a server can't be reached.

An HTTP gateway or a chat page sits on this class, or on the one of ``async_client.py``, and on
nothing below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmchatlinker.client_methods import InstructionMethods, refusal, split
from llmchatlinker.envelope import Envelope
from llmchatlinker.errors import LLMChatLinkerError
from llmchatlinker.instructions import InstructionType
from llmchatlinker.message_queue import run
from llmchatlinker.orchestrator import submit
from llmchatlinker.results.result import InstructionResult


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
