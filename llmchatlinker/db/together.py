"""What many threads ask of PostgreSQL at the same moment is done in one transaction.

A thousand calls that begin or end together would otherwise be a thousand transactions, and what each
takes is mostly not its own work: round trips, a commit, and a turn at Python's interpreter for each.
Who comes alone does not wait for company, so a quiet worker is no slower for it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from llmchatlinker.db.driver import IN_THE_WAY, Transaction
from llmchatlinker.db.sessions import database
from llmchatlinker.defects import log_defect

logger = logging.getLogger(__name__)

#: How many are done in one transaction: it holds the locks of all.
AT_MOST = 32


class PutOff:
    """What ``work`` returns for who is in the way of another one in its transaction: it comes next."""


PUT_OFF = PutOff()


Item = TypeVar("Item")
Done = TypeVar("Done")


class _Place(Generic[Item, Done]):
    """A thread in the line. ``found``: what has come of it, as the only entry; empty: do it alone."""

    __slots__ = ("found", "item", "leads", "woken")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.leads = False
        self.found: list[Done | PutOff | None] = []
        self.woken = threading.Lock()
        self.woken.acquire()


class Together(Generic[Item, Done]):
    """``work(rows, items)`` returns for each item what came of it, in the same order.

    There is one transaction at a time, for what has come during the one before. It may be run again when
    the connection broke. The first item is never put off. Where ``work`` raises, everything is rolled
    back, and each item done in a transaction of its own: one that is amiss is nobody else's failure.
    So ``work`` must not wait for long for what one of the items needs.
    """

    def __init__(
        self, work: Callable[[Transaction, Sequence[Item]], Sequence[Done | PutOff | None]]
    ) -> None:
        self._work = work
        _all.add(self)
        self.forget()

    def forget(self) -> None:
        """Nobody is in line: the process is a new one, and the threads were its parent's."""
        self._lock = threading.Lock()
        self._line: deque[_Place[Item, Done]] = deque()
        self._is_led = False

    def do(self, item: Item) -> Done | None:
        """Do it with whatever else is asked for now; raises what ``work`` raises for it alone."""
        while True:
            found = self._once(item)
            if not isinstance(found, PutOff):
                return found

    def _once(self, item: Item) -> Done | PutOff | None:
        place: _Place[Item, Done] = _Place(item)
        with self._lock:
            place.leads = not self._is_led
            if place.leads:
                self._is_led = True
            else:
                self._line.append(place)
        if not place.leads:
            place.woken.acquire()
        if place.leads:
            self._lead(place)
        return place.found[0] if place.found else self._in_one([item])[0]

    def _lead(self, first: _Place[Item, Done]) -> None:
        """Do what has come by now; then whoever has waited longest leads."""
        with self._lock:
            others = [self._line.popleft() for _ in range(min(len(self._line), AT_MOST - 1))]
        try:
            if others:
                self._try_together([first, *others])
            else:
                first.found.append(self._in_one([first.item])[0])
        finally:
            with self._lock:
                following = self._line.popleft() if self._line else None
                if following is None:
                    self._is_led = False
                else:
                    following.leads = True
            for place in (*([] if following is None else [following]), *others):
                place.woken.release()

    def _try_together(self, places: Sequence[_Place[Item, Done]]) -> None:
        try:
            done = self._in_one([place.item for place in places])
        except IN_THE_WAY:
            return
        except Exception as error:
            log_defect(logger, "%d can't be done together, so each alone", len(places), error=error)
            return
        for place, found in zip(places, done, strict=True):
            place.found.append(found)

    def _in_one(self, items: Sequence[Item]) -> Sequence[Done | PutOff | None]:
        return database().run_on_driver(lambda rows: self._work(rows, items))


_all: WeakSet[Together[Any, Any]] = WeakSet()


def _after_fork() -> None:
    for each in _all:
        each.forget()


os.register_at_fork(after_in_child=_after_fork)
