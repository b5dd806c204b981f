"""What is counted where it happens. Off, it costs a look at a variable; on, some microseconds.

Children of metrics are resolved once for each set of labels. What comes from outside and becomes a
label is bounded: a type is one of the instruction set, and providers and LLMs beyond ``PAIRS`` count as
``other``.
"""

from __future__ import annotations

import threading
from decimal import Decimal
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram

from llmchatlinker.instructions import INSTRUCTION_SET
from llmchatlinker.providers.base import Usage
from llmchatlinker.telemetry.definitions import COUNTED, Definition

#: Pairs of a provider and an LLM that are told apart in one process.
PAIRS = 100
OTHER = "other"
UNKNOWN = "unknown"


class Metrics:
    """The process's counters."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {name: self._make(row) for name, row in COUNTED.items()}
        self._made = {name.removeprefix("llmchatlinker_"): metric for name, metric in made.items()}
        self._stages: dict[tuple[str | None, str, str, str], tuple[Any, Any]] = {}
        self._queues: dict[tuple[str, str], Any] = {}
        self._ends: dict[tuple[str, str], tuple[Any, Any]] = {}
        self._pairs: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def _make(self, row: Definition) -> Counter | Histogram:
        if row.kind == "counter":
            return Counter(row.name, row.help, row.labels, registry=self.registry)
        return Histogram(
            row.name, row.help, row.labels, registry=self.registry, buckets=row.buckets
        )

    def stage(
        self,
        type: str | None,
        unit: str,
        stage: str,
        outcome: str,
        seconds: float,
        queued: float | None,
    ) -> None:
        """A stage has ended. ``queued``: seconds that its message waited, where that is known."""
        found = self._stages.get((type, unit, stage, outcome))
        if found is None:
            key = (_type(type), unit, stage, outcome)
            counter = self._made["stages_total"].labels(*key)
            found = counter, self._made["stage_duration_seconds"].labels(*key[:3])
            if key[0] == type:
                self._stages[key] = found
        found[0].inc()
        found[1].observe(seconds)
        if queued is not None:
            queue = self._queues.get((unit, stage))
            if queue is None:
                queue = self._made["stage_queue_seconds"].labels(unit, stage)
                self._queues[unit, stage] = queue
            queue.observe(queued)

    def end(self, type: str, outcome: str, seconds: float) -> None:
        """An instruction is final."""
        found = self._ends.get((type, outcome))
        if found is None:
            counter = self._made["instructions_total"].labels(_type(type), outcome)
            found = counter, self._made["instruction_duration_seconds"].labels(_type(type))
            if type in INSTRUCTION_SET:
                self._ends[type, outcome] = found
        found[0].inc()
        found[1].observe(seconds)

    def attempt(
        self,
        provider: str,
        llm: str,
        outcome: str,
        *,
        seconds: float | None = None,
        first_token: float | None = None,
        usage: Usage | None = None,
        cost: Decimal | None = None,
        http_status: int | None = None,
        retry: bool = False,
        fallback: bool = False,
    ) -> None:
        """A call has ended, or its worker has."""
        pair = (provider, llm) if self._known((provider, llm)) else (OTHER, OTHER)
        self._made["attempts_total"].labels(*pair, outcome).inc()
        if seconds is not None:
            self._made["attempt_duration_seconds"].labels(*pair).observe(seconds)
        if first_token is not None:
            self._made["first_token_seconds"].labels(*pair).observe(first_token)
        for kind in ("prompt", "completion", "cached_prompt"):
            count = None if usage is None else getattr(usage, f"{kind}_tokens")
            if count is not None and count > 0:  # a provider may say anything
                self._made["tokens_total"].labels(*pair, kind).inc(count)
        if cost is not None and cost > 0:
            self._made["cost_total"].labels(*pair).inc(float(cost))
        if http_status is not None:
            self._made["http_errors_total"].labels(*pair, str(http_status)).inc()
        if retry:
            self._made["retries_total"].labels(*pair).inc()
        if fallback:
            self._made["fallbacks_total"].labels(*pair).inc()

    def cooldown(self, provider: str) -> None:
        """A provider is not called for a while."""
        name = provider if self._known((provider, "")) else OTHER
        self._made["cooldowns_total"].labels(name).inc()

    def _known(self, pair: tuple[str, str]) -> bool:
        if pair not in self._pairs:
            with self._lock:
                if len(self._pairs) >= 2 * PAIRS:  # the pairs, and their providers alone
                    return False
                self._pairs.add(pair)
        return True


def _type(name: str | None) -> str:
    return name if name in INSTRUCTION_SET else UNKNOWN
