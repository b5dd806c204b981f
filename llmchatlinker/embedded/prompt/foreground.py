"""The terminal's keys for the prompt alone, and not for the `make` that started it.

Ctrl-C goes to the whole foreground process group of a terminal. GNU make takes the first one as an
order to end when its child has ended, and dies of the second (src/commands.c, fatal_error_signal);
then its shell and the prompt would both read from the terminal.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def alone() -> Iterator[None]:
    """In a process group of its own, and that one in the foreground; what it was afterwards.

    Nothing, where the process has a group to itself as it is. Ctrl-Z does nothing meanwhile: the
    shell would not learn that something has stopped.
    """
    group = os.getpgrp()
    if group == os.getpid() or _in_front() != group:
        yield
        return
    ignored = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTSTP, signal.SIGTTOU)}
    try:
        os.setpgid(0, 0)
        os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
        yield
    finally:
        with suppress(OSError):  # the terminal, or who started us, has gone
            os.tcsetpgrp(sys.stdin.fileno(), group)
            os.setpgid(0, group)
        for number, handler in ignored.items():
            signal.signal(number, handler)


def _in_front() -> int | None:
    """The terminal's foreground group; None where the terminal is not the one that controls us."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno())
    except OSError:
        return None
