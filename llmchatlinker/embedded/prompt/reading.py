"""Where the prompt's lines come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import io
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

try:
    import readline
except ImportError:  # a Python without it: lines can't be edited, and nothing can be offered
    readline = None  # type: ignore[assignment]

PROMPT = "you> "
MORE = "...> "


class Lines(Protocol):
    """``interactive``: somebody sits there, who can be asked and can press Ctrl-C."""

    interactive: bool

    def read(self, offered: str = "") -> str:
        """The next line; ``offered``: a text to edit. Raises EOFError, KeyboardInterrupt."""


class TerminalLines:
    """A person's lines; one that ends with a backslash goes on in the next."""

    interactive = True

    def read(self, offered: str = "") -> str:
        """See ``Lines``."""
        print()
        with _offering(offered):
            line = input(PROMPT)
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input(MORE)
        return line


@contextmanager
def _offering(text: str) -> Iterator[None]:
    if readline is None or not text:
        yield
        return
    readline.set_startup_hook(lambda: readline.insert_text(text))
    try:
        yield
    finally:
        readline.set_startup_hook()


class PipedLines:
    """Lines of a pipe or a file; each is shown, since nobody has typed it."""

    interactive = False

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def read(self, offered: str = "") -> str:
        """See ``Lines``; there is nobody to whom something could be offered."""
        line = self._stream.readline()
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        print(f"\n{PROMPT}{line}", flush=True)
        return line


def lines() -> Lines | None:
    """The lines of this process's input; None when nobody asks anything.

    A pipe that stays open and has nothing in it is not waited for: whoever started us need not know
    that we would read it.
    """
    stream, output = sys.stdin, sys.stdout
    try:
        if stream is None or output is None:
            return None
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors="replace")
        if stream.isatty():
            return TerminalLines() if output.isatty() else None
        if not isinstance(stream, io.TextIOWrapper) or not _has_some(stream):
            return None
        stream.reconfigure(errors="replace")
        return PipedLines(stream)
    except (OSError, ValueError):  # closed, or opened for writing only, as nohup does
        return None


def _has_some(stream: io.TextIOWrapper) -> bool:
    ready, _, _ = select.select([stream], [], [], 0)
    if not ready:
        return False
    buffer = stream.buffer
    return bool(buffer.peek(1)) if isinstance(buffer, io.BufferedReader) else False
