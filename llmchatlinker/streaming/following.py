"""Who follows in this process: one queue for what is pushed, one thread that reads for all of them.

The thread looks into PostgreSQL for

* who has just begun to follow what another process submitted, who misses an event, and who was too
  slow for what was pushed (all in one query),
* everybody who has heard nothing for ``fallback_interval`` seconds: that covers lost pushes,
* everybody, at short intervals that grow until something comes, where nothing is pushed (embedded
  mode, no broker).

So a thousand followers need one connection to PostgreSQL.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from llmchatlinker.defects import log_defect
from llmchatlinker.errors import LLMChatLinkerError, Unavailable
from llmchatlinker.results.replies import Replies
from llmchatlinker.settings import get_settings
from llmchatlinker.streaming import reading
from llmchatlinker.streaming.follower import Follower

logger = logging.getLogger(__name__)

GROWTH = 1.5
#: Followers in one query, at most.
BATCH = 100


class Following:
    """The followers of a process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._followers: dict[str, list[Follower]] = {}
        self._due: dict[Follower, None] = {}
        #: Streams of others' that are still to be registered; that are; and that nobody follows now.
        self._foreign: set[str] = set()
        self._registered: set[str] = set()
        self._left: set[str] = set()
        self._heard: dict[str, float] = {}
        self._look_at = math.inf
        self._pause = 0.0
        self._thread: threading.Thread | None = None
        self.replies = Replies(self._hinted, self._look_for_all, self._pushed)

    def queue(self) -> str | None:
        """The queue to which events are pushed; None where nothing is pushed."""
        if get_settings().broker_is_embedded:
            return None
        self.replies.start()
        return self.replies.queue_name

    def add(self, follower: Follower) -> None:
        """Feed this one, until ``remove``."""
        self.replies.start()
        with self._changed:
            key = follower.instruction_id
            self._followers.setdefault(key, []).append(follower)
            self._left.discard(key)
            if not follower.own and key not in self._registered:
                self._foreign.add(key)
            if not follower.own or not self.replies.connected:
                self._due[follower] = None
            self._hurry()
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="followers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, follower: Follower) -> None:
        """It follows no longer."""
        with self._changed:
            key = follower.instruction_id
            followers = self._followers.get(key, [])
            if follower not in followers:
                return
            followers.remove(follower)
            self._due.pop(follower, None)
            if not followers:
                del self._followers[key]
                self._heard.pop(key, None)
                self._foreign.discard(key)
                if key in self._registered:
                    self._registered.discard(key)
                    if not follower.has_ended:  # or else the end of the instruction has removed it
                        self._left.add(key)
                        self._changed.notify()
            if not self._followers:
                self._look_at = math.inf

    def look(self, follower: Follower) -> None:
        """Read for this one now."""
        with self._changed:
            if follower in self._followers.get(follower.instruction_id, ()):
                self._due[follower] = None
                self._changed.notify()

    # --- the thread of the queue ----------------------------------------------------------------

    def _pushed(self, pushes: list[Any]) -> None:
        now = time.monotonic()
        for push in pushes:
            try:
                key, first, last = str(push["id"]), int(push["first"]), int(push["last"])
            except (KeyError, TypeError, ValueError):
                continue  # not one of ours
            with self._changed:
                followers = list(self._followers.get(key, ()))
                if followers:
                    self._heard[key] = now
            for follower in followers:
                copy = len(followers) > 1
                if follower.pushed(first, last, push.get("events"), copy=copy):
                    self.look(follower)
                elif follower.has_ended:
                    self.remove(follower)

    def _hinted(self, instruction_id: str, hint: object) -> None:
        with self._changed:
            for follower in self._followers.get(instruction_id, ()):
                if follower.wants:
                    self._due[follower] = None
                    self._changed.notify()

    def _look_for_all(self) -> None:
        with self._changed:
            self._due.update(dict.fromkeys(self._all()))
            self._changed.notify()

    def _all(self) -> list[Follower]:
        return [follower for followers in self._followers.values() for follower in followers]

    # --- the reader thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            followers = self._next()
            try:
                self._say_goodbye()
                for start in range(0, len(followers), BATCH):
                    self._look(followers[start : start + BATCH])
            except Unavailable as error:
                self._refuse_new(followers, error)
            except Exception as error:
                log_defect(logger, "Events can't be read; trying again", error=error)
                self._postpone(followers)

    def _next(self) -> list[Follower]:
        """Wait until there is something to look for; returns the followers."""
        with self._changed:
            while True:
                now = time.monotonic()
                if self._followers and now >= self._look_at:
                    found = [*self._quiet(now), *self._due]
                    self._look_at = now + self._interval()
                    self._due.clear()
                    return list(dict.fromkeys(found))
                if self._due or self._left:
                    found = list(self._due)
                    self._due.clear()
                    return found
                self._changed.wait(self._look_at - now if self._followers else None)

    def _quiet(self, now: float) -> list[Follower]:
        """Who has heard nothing for long, and may be missing something."""
        since = now - get_settings().fallback_interval if self.replies.connected else math.inf
        return [
            follower
            for key, followers in self._followers.items()
            if self._heard.get(key, -math.inf) <= since
            for follower in followers
            if follower.wants
        ]

    def _interval(self) -> float:
        settings = get_settings()
        if self.replies.connected:
            return settings.fallback_interval
        pause = self._pause
        self._pause = min(pause * GROWTH, settings.poll_interval_max)
        return pause

    def _hurry(self) -> None:
        """Where nothing is pushed: the next look soon again."""
        self._pause = get_settings().poll_interval
        self._look_at = min(self._look_at, time.monotonic() + self._interval())

    def _look(self, followers: Sequence[Follower]) -> None:
        self._feed(followers)
        with self._changed:
            foreign = [f for f in followers if f.instruction_id in self._foreign and f.wants]
            if not foreign or not self.replies.connected:
                return
            keys = list(dict.fromkeys(follower.instruction_id for follower in foreign))
            self._foreign.difference_update(keys)
            self._registered.update(keys)
        # Registered first, read once more second: what comes in between is not missed.
        reading.register(keys, self.replies.queue_name)
        self._feed(foreign)

    def _feed(self, followers: Sequence[Follower]) -> None:
        wanted = [(follower.instruction_id, follower.next) for follower in followers]
        submitted = [follower.submitted for follower in followers]
        more = []
        for follower, found, sure in zip(followers, reading.read(wanted), submitted, strict=True):
            if not found.known and not sure:
                continue
            if found.rows:
                with self._changed:
                    self._hurry()
            if follower.found(found):
                more.append(follower)
            elif follower.has_ended:
                self.remove(follower)
        with self._changed:
            self._due.update(dict.fromkeys(more))

    def _say_goodbye(self) -> None:
        with self._changed:
            left, self._left = list(self._left), set()
        if left:
            reading.unregister(left, self.replies.queue_name)

    def _refuse_new(self, followers: Sequence[Follower], error: LLMChatLinkerError) -> None:
        """PostgreSQL is gone: who has just come is told so, the others wait."""
        for follower in followers:
            if not follower.opened:
                follower.fail(error)
                self.remove(follower)
        self._postpone([follower for follower in followers if follower.opened])

    def _postpone(self, followers: Sequence[Follower]) -> None:
        with self._changed:
            self._look_at = time.monotonic() + get_settings().poll_interval_max
        threading.Event().wait(get_settings().poll_interval_max)
        for follower in followers:
            self.look(follower)


_current: Following | None = None
_current_lock = threading.Lock()
_of_the_parent: Following | None = None


def following() -> Following:
    """The process's followers, made at the first call."""
    global _current
    if _current is None:
        with _current_lock:
            if _current is None:
                _current = Following()
    return _current


def forget_following() -> None:
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
