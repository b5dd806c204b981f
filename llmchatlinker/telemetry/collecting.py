"""One collector for everything: what is counted, and what is read where it stands when somebody asks."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from llmchatlinker.results import wakeups
from llmchatlinker.telemetry import gauges, sweeps
from llmchatlinker.telemetry.definitions import READ, SYSTEM, Definition
from llmchatlinker.telemetry.gauges import Sample
from llmchatlinker.telemetry.switch import metrics, switch_on
from llmchatlinker.version import __version__

if TYPE_CHECKING:
    from llmchatlinker.telemetry.worker import WorkerView

_registries: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()
_adding = threading.Lock()
#: The worker that this process is, if it is one.
_worker: WorkerView | None = None


class Everything:
    """A collector as prometheus_client wants one."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on what the process does."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All of this process's metrics."""
        counted = metrics()
        if counted is not None:
            yield from counted.registry.collect()
        yield from _families(READ, _read())
        yield from _families(SYSTEM, gauges.samples())


def add_to(registry: CollectorRegistry) -> None:
    """Have everything in the registry, once; the process counts from here on."""
    switch_on()
    with _adding:
        if registry not in _registries:
            registry.register(Everything())
            _registries.add(registry)


def is_worker(view: WorkerView | None) -> None:
    """This process is that worker."""
    global _worker
    _worker = view


def _families(table: dict[str, Definition], samples: Iterable[Sample]) -> Iterator[Metric]:
    families: dict[str, Any] = {}
    for name, labels, value in samples:
        row = table.get(f"llmchatlinker_{name}")
        assert row is not None, name
        if name not in families:
            make = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            families[name] = make(row.name, row.help, labels=row.labels)
        families[name].add_metric(labels, value)
    yield from families.values()


def _read() -> Iterator[Sample]:
    yield "build_info", (__version__,), 1
    if _worker is not None:
        for queue in _worker.queues:
            yield "worker_queue", (queue,), 1
        yield "worker_slots", (), _worker.slots
        yield "worker_slots_in_use", (), _worker.in_use()
    yield from _pools()
    yield from _waiting()
    yield from _sweeping()


def _pools() -> Iterator[Sample]:
    from llmchatlinker.celery_app import app
    from llmchatlinker.db import sessions
    from llmchatlinker.settings import get_settings

    current = sessions._current
    engine = None if current is None else current._engine
    in_use = 0 if engine is None else engine.pool.checkedout()  # type: ignore[attr-defined]  # QueuePool's
    yield "database_connections_in_use", (), in_use
    yield "database_connections_limit", (), get_settings().database_pool_size
    pool = app._pool
    yield "broker_connections_in_use", (), 0 if pool is None else len(pool._dirty)
    yield "broker_connections_limit", (), get_settings().broker_pool_size


def _waiting() -> Iterator[Sample]:
    current = wakeups._current
    if current is None:
        return
    counts = dict(current.counts)
    yield "result_waiters", (), current.waiting
    yield "result_hints_total", (), counts.get(("hints", ""), 0)
    for (what, cause), count in counts.items():
        if what != "hints":
            yield f"{what}_total", (cause,), count


def _sweeping() -> Iterator[Sample]:
    if not sweeps.rounds:
        return
    yield "sweep_seconds_total", (), sweeps.seconds
    tables = (
        ("sweeps_total", sweeps.rounds),
        ("swept_total", sweeps.done),
        ("sweep_failures_total", sweeps.failures),
        ("dead_letters_total", sweeps.letters),
    )
    for name, table in tables:
        for label, count in list(table.items()):
            yield name, (label,), count


def _after_fork() -> None:
    global _adding
    _adding = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
