"""How a client waits: it is woken, and one thread per process looks for all of its waiters at once.

Whoever waits registers an id and a function to call. A hint that brings its envelope along is handed
over as it comes. The reader thread looks at the database for

* the ids that were just hinted without, or that nobody would hint to this process (all in one query),
* every id that is waited for, each ``fallback_interval`` seconds: that covers lost hints,
* every id, at short intervals that grow, while there is no reply queue (embedded mode, no broker),
* the ids of Celery tasks that are no instructions, at such intervals always: nobody hints their ends.

So a thousand waiting threads need one connection to PostgreSQL.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from llmchatlinker.defects import log_defect
from llmchatlinker.errors import Unavailable
from llmchatlinker.ids import as_instruction_id
from llmchatlinker.results import reading
from llmchatlinker.results.early import EarlyHints
from llmchatlinker.results.replies import Replies
from llmchatlinker.settings import get_settings

logger = logging.getLogger(__name__)

Meta = dict[str, Any]
OnReady = Callable[[Meta], None]
Read = Callable[[Sequence[str]], Mapping[str, Meta]]
Register = Callable[[Sequence[str], str], None]

GROWTH = 1.5
#: Ids in one query, at most.
BATCH = 1_000
#: Ids that this process submitted: so many are remembered.
REMEMBERED = 10_000


class Wakeups:
    """The waiters of a process. ``read``: metas by id; ``register``: be hinted for others' ids."""

    def __init__(self, read: Read, register: Register) -> None:
        self._read = read
        self._register = register
        self._changed = threading.Condition()
        self._waiting: dict[str, list[OnReady]] = {}
        self._due: set[str] = set()
        self._foreign: set[str] = set()
        #: Ids that this process submitted; whether their hint can't be lost on its way here.
        self._submitted: OrderedDict[str, bool] = OrderedDict()
        self._early = EarlyHints()
        self._look_at = math.inf
        #: Until when the reader thread sleeps, if it does.
        self._asleep_until = math.inf
        self._pause = 0.0
        #: Ids whose ends are not hinted, when to look for them, and how long to pause then.
        self._unhinted: set[str] = set()
        self._poll_at = math.inf
        self._poll_pause = 0.0
        self._thread: threading.Thread | None = None
        #: For the metrics: hints that came, and reads and results by what they go back to.
        self.counts: Counter[tuple[str, str]] = Counter()
        self._cause = ""
        self.replies = Replies(self._hinted, self._reconnected)

    def reply_to(self) -> str | None:
        """The queue that this process's hints come to; None where there are none."""
        if get_settings().broker_is_embedded:
            return None
        self.replies.start()
        return self.replies.queue_name

    def submitted(self, task_id: str) -> None:
        """This process submits the id, so its hint comes here without further ado."""
        with self._changed:
            self._submitted[task_id] = self.replies.connected
            if len(self._submitted) > REMEMBERED:
                self._submitted.popitem(last=False)

    def wait(self, task_id: str, on_ready: OnReady) -> None:
        """Call ``on_ready`` with the id's meta once it is ready, or known to be nobody's."""
        with self._changed:
            meta = self._early.meta(task_id)
            if meta is None:
                self._add(task_id, on_ready)
            else:
                self.counts["results", "hint"] += 1
                self._forget(task_id)
        if meta is None:
            self.replies.start()
        else:
            on_ready(meta)

    def _add(self, task_id: str, on_ready: OnReady) -> None:
        self._waiting.setdefault(task_id, []).append(on_ready)
        if as_instruction_id(task_id) is None:
            self._unhinted.add(task_id)
            self._poll_at = time.monotonic()
            self._poll_pause = get_settings().poll_interval
        elif task_id not in self._submitted:
            self._foreign.add(task_id)
        if not self._submitted.get(task_id, False) or task_id in self._early:
            self._due.add(task_id)
        self._pause = get_settings().poll_interval
        self._look_at = min(self._look_at, time.monotonic() + self._interval())
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="results", daemon=True)
            self._thread.start()
        if self._due or self._next_at() < self._asleep_until:
            self._changed.notify()  # and not for each who waits: it looks at the time by itself

    def leave(self, task_id: str, on_ready: OnReady) -> None:
        """Don't wait any longer."""
        with self._changed:
            waiters = self._waiting.get(task_id, [])
            if on_ready in waiters:
                waiters.remove(on_ready)
                if not waiters:
                    self._forget(task_id)

    @property
    def waiting(self) -> int:
        """How many ids are waited for."""
        return len(self._waiting)

    def forget(self, task_id: str) -> None:
        """What has come of it is not to be handed over any longer, and no hint will come again."""
        with self._changed:
            self._early.forget(task_id)
            self._submitted.pop(task_id, None)

    def _hinted(self, task_id: str, hint: dict[str, Any]) -> None:
        meta = reading.hinted(task_id, hint)
        with self._changed:
            self.counts["hints", ""] += 1
            if task_id not in self._waiting:
                self._early.remember(task_id, meta)
                return
            if meta is None:
                self._due.add(task_id)
                self._changed.notify()
                return
        self._deliver({task_id: meta}, "hint")

    def _reconnected(self) -> None:
        """Hints may have been lost: look for all that is waited for, and for what will be."""
        with self._changed:
            self._submitted.update(dict.fromkeys(self._submitted, False))
            self._due.update(self._waiting)
            self._changed.notify()

    # --- the reader thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            task_ids = self._next()
            try:
                for start in range(0, len(task_ids), BATCH):
                    self._look(task_ids[start : start + BATCH])
            except Unavailable:
                self._postpone()  # the pool has said it; waiting goes on
            except Exception as error:
                log_defect(logger, "Results can't be read; trying again", error=error)
                self._postpone()

    def _next(self) -> list[str]:
        """Wait until there is something to look for; returns the ids."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._waiting and now >= self._look_at:
                    self._look_at = now + self._interval()
                    self._cause = "fallback" if self.replies.connected else "poll"
                    self._due.clear()
                    return list(self._waiting)
                if self._unhinted and now >= self._poll_at:
                    self._poll_at = now + self._poll_pause
                    longest = get_settings().poll_interval_max
                    self._poll_pause = min(self._poll_pause * GROWTH, longest)
                    self._due.update(self._unhinted)
                if self._due:
                    self._cause = "due"
                    found = [task_id for task_id in self._due if task_id in self._waiting]
                    self._due.clear()
                    return found
                self._asleep_until = self._next_at() if self._waiting else math.inf
                self._changed.wait(self._asleep_until - now if self._waiting else None)

    def _next_at(self) -> float:
        return min(self._look_at, self._poll_at)

    def _interval(self) -> float:
        settings = get_settings()
        if self.replies.connected:
            return settings.fallback_interval
        pause = self._pause
        self._pause = min(pause * GROWTH, settings.poll_interval_max)
        return pause

    def _postpone(self) -> None:
        with self._changed:
            self._look_at = time.monotonic() + get_settings().poll_interval_max
            self._poll_at = max(self._poll_at, self._look_at)

    def _look(self, task_ids: Sequence[str]) -> None:
        self._deliver(self._read(task_ids), self._cause)
        with self._changed:
            self.counts["result_reads", self._cause] += 1
            foreign = [task_id for task_id in task_ids if task_id in self._foreign]
            if not foreign or not self.replies.connected:
                return
            self._foreign.difference_update(foreign)
        # Registered first, read once more second: an end in between is not missed.
        self._register(foreign, self.replies.queue_name)
        self._deliver(self._read(foreign), self._cause)

    def _deliver(self, metas: Mapping[str, Meta], cause: str) -> None:
        ready: list[tuple[list[OnReady], Meta]] = []
        with self._changed:
            for task_id, meta in metas.items():
                if meta["ended"]:
                    waiters = self._waiting.get(task_id, [])
                    self.counts["results", cause] += bool(waiters)
                    ready.append((waiters, meta))
                    self._forget(task_id)
        for waiters, meta in ready:
            for left, on_ready in enumerate(reversed(waiters), 1 - len(waiters)):
                try:
                    # Each its own: what one does with an envelope is not to be seen by another.
                    on_ready(deepcopy(meta) if left else meta)
                except Exception:
                    logger.exception("One who waited could not be woken; the others are")

    def _forget(self, task_id: str) -> None:
        self._waiting.pop(task_id, None)
        self._due.discard(task_id)
        self._foreign.discard(task_id)
        self._unhinted.discard(task_id)
        self._submitted.pop(task_id, None)
        self._early.forget(task_id)
        if not self._waiting:
            self._look_at = math.inf
        if not self._unhinted:
            self._poll_at = math.inf


_current: Wakeups | None = None
_current_lock = threading.Lock()
_of_the_parent: Wakeups | None = None


def wakeups() -> Wakeups:
    """The process's waiters, made at the first call."""
    global _current
    if _current is None:
        with _current_lock:
            if _current is None:
                _current = Wakeups(reading.read, reading.register_waiters)
    return _current


def forget_wakeups() -> None:
    """Start anew, for other servers."""
    global _current
    with _current_lock:
        previous, _current = _current, None
    if previous is not None:
        previous.replies.stop()


def _after_fork() -> None:
    """A child has none of the threads, and nobody knows what its parent's locks were held for."""
    global _current, _current_lock, _of_the_parent
    _current_lock = threading.Lock()
    # Kept, and never touched: its end would say goodbye on the parent's connection.
    _of_the_parent, _current = _current, None


os.register_at_fork(after_in_child=_after_fork)
