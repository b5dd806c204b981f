"""Hints that came before anybody waited for them, and the envelopes that they brought along."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import NamedTuple

from llmchatlinker.results.reading import Meta

#: So many hints are remembered.
REMEMBERED = 10_000
#: Of these, so many keep their envelope, and for so many seconds: who asks later is told what PostgreSQL
#: has by then, which may have been erased.
KEPT, KEPT_SECONDS = 1_000, 10.0


class _Hint(NamedTuple):
    at: float
    meta: Meta | None


class EarlyHints:
    """The newest of them, by id. Its owner has the lock."""

    def __init__(self) -> None:
        self._hints: OrderedDict[str, _Hint] = OrderedDict()
        self._kept: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._hints)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._hints

    def remember(self, task_id: str, meta: Meta | None) -> None:
        """It came just now, with this meta or without."""
        self._hints[task_id] = _Hint(time.monotonic(), meta)
        if len(self._hints) > REMEMBERED:
            self._hints.popitem(last=False)
        if meta is None:
            return
        self._kept.append(task_id)
        if len(self._kept) > KEPT:
            oldest = self._kept.popleft()
            if oldest in self._hints:
                self._hints[oldest] = self._hints[oldest]._replace(meta=None)

    def meta(self, task_id: str) -> Meta | None:
        """What it brought, if it is kept still."""
        hint = self._hints.get(task_id)
        if hint is None or time.monotonic() - hint.at > KEPT_SECONDS:
            return None
        return hint.meta

    def forget(self, task_id: str) -> None:
        """It is as if it had not come."""
        self._hints.pop(task_id, None)
