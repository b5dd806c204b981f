"""The error tree: every failure that LLMChatLinker knows by name, each with its code.

A code is part of the contract with clients (``error.code`` in an envelope), so the list is closed:
a new one is an entry here and in docs/errors.md. Errors rebuild from their positional arguments,
because a JSON result backend has nothing else to rebuild them from
(``celery/backends/base.py``, ``exception_to_python``).
"""

from __future__ import annotations

from typing import Any, ClassVar

from celery.exceptions import TimeoutError as CeleryTimeoutError


class LLMChatLinkerError(Exception):
    """Something went wrong in LLMChatLinker."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str | None = None, details: dict[str, Any] | None = None) -> None:
        self.message = message or (type(self).__doc__ or type(self).__name__).strip().split("\n")[0]
        self.details = details or {}
        super().__init__(self.message, self.details)

    def __str__(self) -> str:
        return self.message


# --- what the caller can mend ------------------------------------------------------------------


class UnknownInstruction(LLMChatLinkerError):
    """There is no instruction type of that name."""

    code = "unknown_instruction"


class InvalidData(LLMChatLinkerError):
    """The instruction's data is not what its type takes."""

    code = "invalid_data"


class NotFound(LLMChatLinkerError):
    """Nothing has that id or name."""

    code = "not_found"


class Conflict(LLMChatLinkerError):
    """Something that exists already stands in the way."""

    code = "conflict"


class NotAMember(LLMChatLinkerError):
    """The user is not a member of the chat."""

    code = "not_a_member"


class ChatBusy(LLMChatLinkerError):
    """The chat is generating already, and the turn policy says not to wait."""

    code = "chat_busy"


class Overloaded(LLMChatLinkerError):
    """The system takes no new instruction right now."""

    code = "overloaded"


# --- what a provider did -----------------------------------------------------------------------


class ProviderError(LLMChatLinkerError):
    """The provider could not be reached, or its answer was no usable one."""

    code = "provider_error"


class ProviderTimeout(ProviderError):
    """The provider did not answer in time."""

    code = "provider_timeout"


# --- how an instruction ended without its work -------------------------------------------------


class Cancelled(LLMChatLinkerError):
    """The instruction was cancelled before it was done."""

    code = "cancelled"


class DeadlineExceeded(LLMChatLinkerError):
    """The instruction was not done by its deadline."""

    code = "deadline_exceeded"


class InDoubt(LLMChatLinkerError):
    """A worker died while a provider was answering: nobody knows whether the call was made."""

    code = "in_doubt"


class Poisoned(LLMChatLinkerError):
    """The work of this instruction ended its worker again and again, so it is tried no more."""

    code = "poisoned"


class InternalError(LLMChatLinkerError):
    """A defect of LLMChatLinker's own; the worker's log has the traceback."""

    code = "internal"


# --- what the operator can mend ----------------------------------------------------------------


class ConfigurationError(LLMChatLinkerError):
    """A setting is missing or wrong."""

    code = "configuration"


class Unavailable(LLMChatLinkerError):
    """A server that LLMChatLinker needs does not answer."""

    code = "unavailable"


class StartFailed(LLMChatLinkerError):
    """Something that had to be started did not start.

    Arguments: ``message`` (which step, and why) and ``{"remedy": str}`` (what to do).
    """

    code = "start_failed"

    @property
    def remedy(self) -> str:
        """What the person at the keyboard can do about it."""
        return str(self.details.get("remedy", ""))


class ResultTimeout(LLMChatLinkerError, CeleryTimeoutError):
    """The result was not there within the time that the caller gave."""

    code = "result_timeout"
