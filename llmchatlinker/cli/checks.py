"""What a check of ``llmchatlinker doctor`` is, and how a group of checks is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from llmchatlinker.cli.failures import as_failure

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
    try:
        yield from group()
    except Exception as error:  # whatever it is, the other groups still have something to say
        failure = as_failure(error, doctor=True)
        yield fail(name, failure.message, failure.remedy)
