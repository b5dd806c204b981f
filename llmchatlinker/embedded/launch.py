"""What stands between fork and exec of a child process: give up rights, and die with the parent.

Run as a plain script that imports nothing of the package, so that it is up in milliseconds and the
parent needs no ``preexec_fn`` (Python code between fork and exec can deadlock in a process with
threads). Usage::

    python -I -S launch.py PARENT_PID SIGNAL UID GID -- PROGRAM [ARGUMENT ...]

``UID`` and ``GID`` of -1 mean: stay who you are. Exit codes as a shell's: 126 when the user can't
be taken on or the program can't be run, 127 when there is no such program.

Facts (prctl(2), PR_SET_PDEATHSIG): the signal comes when the *thread* dies that forked; it is kept
by exec, and lost by changing uid or gid, so it is set last; a parent that died before is only seen
by asking for its pid.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel send this process ``signal_number`` when ``parent`` dies; on Linux only.

    Raises ``SystemExit`` when the parent is dead already.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the parent process died before this one could start")


def become(uid: int, gid: int) -> None:
    """Take on ``uid`` and ``gid`` for good and no other group. Raises ``OSError``."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main(argv: list[str]) -> None:
    parent, signal_number, uid, gid = (int(word) for word in argv[:4])
    program = argv[5:]
    try:
        if uid >= 0:
            become(uid, gid)
        die_with_parent(signal_number, parent)
        os.execvp(program[0], program)
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main(sys.argv[1:])
