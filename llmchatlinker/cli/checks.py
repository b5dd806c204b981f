"""What a check of ``llmchatlinker doctor`` is, and how a group of checks is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from llmchatlinker.cli.failures import Failure

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """``found``: what is the case, in a line; ``remedy``: how to mend it, where it is not ok."""

    name: str
    state: State
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, "ok", found)


def warn(name: str, found: str, remedy: str) -> Check:
    """It works, and may not go on doing so."""
    return Check(name, "warn", found, remedy)


def fail(name: str, found: str, remedy: str) -> Check:
    """It does not work."""
    return Check(name, "fail", found, remedy)


def checked(name: str, group: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """A group's checks; what it raises is one that failed, and the last of the group."""
    from llmchatlinker.errors import LLMChatLinkerError

    try:
        yield from group()
    except LLMChatLinkerError as error:
        yield fail(name, error.message, str(error.details.get("remedy", "")))
    except Failure as error:
        yield fail(name, error.message, error.remedy)
