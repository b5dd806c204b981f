"""What processes cost: CPU seconds and resident memory of a process with its children."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

MEGABYTE = 1_000_000


def _tree(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        yield root
        yield from root.children(recursive=True)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process, of its children, and of children that have ended.

    A server that makes a process per connection spends most of its time in children that are gone:
    the kernel adds their time to the parent that waited for them.
    """
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def resident_megabytes(pid: int) -> float:
    """Resident memory of the process and its children, in MB.

    Pages that a fork shares are counted once per process, as ``top`` does.
    """
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / MEGABYTE
