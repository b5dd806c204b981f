"""A client process: ``python -m benchmarks.client ours|stock``.

It reads one JSON order per line and writes one JSON answer per line, so that the process that
measures can let the sides take turns while each keeps its connections, and can look at this one's
memory from outside. Times are seconds; moments are of the system-wide monotonic clock.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from benchmarks import calls, streams, turns

#: Stock's look at a result is a new connection of 10 ms and more, so a shorter pause gains nothing.
STOCK_INTERVAL = 0.01
TIMEOUT = 120.0

Order = dict[str, Any]


class Api(Protocol):
    """What a client does: submit, and wait."""

    def submit(self, type_name: str, data: dict[str, Any]) -> Any:
        """Return what ``collect`` takes."""

    def collect(self, result: Any, timeout: float, *, default: bool = False) -> bool:
        """Wait for the envelope; whether it says success. ``default``: ``get()`` as it comes."""


class Ours:
    """LLMChatLinker's public way in."""

    def __init__(self) -> None:
        from llmchatlinker.instructions import INSTRUCTION_SET

        self._types = INSTRUCTION_SET

    def submit(self, type_name: str, data: dict[str, Any]) -> Any:
        """``USER_LIST.delay(…)``."""
        return self._types[type_name].delay(**data)

    def collect(self, result: Any, timeout: float, *, default: bool = False) -> bool:
        """``get(timeout=…)``: there is nothing to tune."""
        return bool(result.get(timeout=timeout)["status"] == "success")


class Stock:
    """Celery's."""

    def __init__(self) -> None:
        from benchmarks import stock

        self._submit = stock.submit

    def submit(self, type_name: str, data: dict[str, Any]) -> Any:
        """``chain(…).apply_async()``."""
        return self._submit(type_name, data)

    def collect(self, result: Any, timeout: float, *, default: bool = False) -> bool:
        """``get(timeout=…)``, whose default of 0.5 s between two looks is only used on request."""
        more = {} if default else {"interval": STOCK_INTERVAL}
        return bool(result.get(timeout=timeout, **more)["status"] == "success")


def _datas(order: Order) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = order.get("datas") or [order.get("data", {})]
    return given


def latency(api: Api, order: Order) -> Order:
    """One at a time: seconds of ``submit`` alone, and from ``submit`` to the envelope."""
    datas = _datas(order)
    submits, cycles, failed = [], [], 0
    for number in range(order["count"]):
        began = time.perf_counter()
        result = api.submit(order["type"], datas[number % len(datas)])
        submitted = time.perf_counter()
        good = api.collect(result, TIMEOUT, default=order.get("default", False))
        ended = time.perf_counter()
        failed += not good
        submits.append(submitted - began)
        cycles.append(ended - began)
    return {"submit": submits, "cycle": cycles, "failed": failed}


def burst(api: Api, order: Order) -> Order:
    """All submitted, then all collected."""
    datas = _datas(order)
    failures: Counter[str] = Counter()
    began = time.monotonic()
    results = [api.submit(order["type"], datas[n % len(datas)]) for n in range(order["count"])]
    submitted = time.monotonic()
    for result in results:
        _collect(api, result, order.get("timeout", TIMEOUT), failures)
    ended = time.monotonic()
    return {
        "began": began,
        "submitted": submitted - began,
        "seconds": ended - began,
        "ended": ended,
        "failures": dict(failures),
    }


def waiters(api: Api, order: Order) -> Order:
    """A thread per instruction waits in ``get()``, as it comes; ``ended`` is when the last is done."""
    results = [api.submit(order["type"], {}) for _ in range(order["count"])]
    failures: Counter[str] = Counter()
    lock = threading.Lock()
    waiting = threading.Barrier(order["count"] + 1)
    moments: list[float] = []

    def wait(result: Any) -> None:
        mine: Counter[str] = Counter()
        waiting.wait()
        _collect(api, result, order["timeout"], mine, default=True)
        with lock:
            failures.update(mine)
            moments.append(time.monotonic())

    threads = [threading.Thread(target=wait, args=(result,)) for result in results]
    for thread in threads:
        thread.start()
    waiting.wait()
    answer({"waiting": len(threads)})
    for thread in threads:
        thread.join()
    return {
        "moments": sorted(moments),
        "failures": dict(failures),
        # Both clocks at the same moment: PostgreSQL knows only the other one.
        "now": time.monotonic(),
        "wall": time.time(),
    }


def _collect(
    api: Api, result: Any, timeout: float, failures: Counter[str], *, default: bool = False
) -> None:
    try:
        if not api.collect(result, timeout, default=default):
            failures["error envelope"] += 1
    except Exception as error:  # what kind of failure it is, is the figure
        failures[type(error).__name__] += 1


def answer(document: Order) -> None:
    """One line to whoever measures."""
    print(json.dumps(document), flush=True)


def main() -> None:
    """Serve orders until the input ends."""
    began = time.perf_counter()
    api: Api = Ours() if sys.argv[1] == "ours" else Stock()
    answer({"imported": time.perf_counter() - began})
    orders: dict[str, Callable[[Api, Order], Order]]
    orders = {
        "latency": latency,
        "burst": burst,
        "waiters": waiters,
        "streams": lambda api, order: streams.ours(order),
        "direct-streams": lambda api, order: streams.direct(order),
        "pairs": lambda api, order: turns.pairs(order),
        "cancels": lambda api, order: turns.cancels(order),
        "event-rate": lambda api, order: streams.event_rate(order),
        "http-latency": lambda api, order: calls.http_latency(order),
        "http-load": lambda api, order: calls.http_load(order),
        "ours-first": lambda api, order: calls.ours_first(order),
        "ours-load": lambda api, order: calls.ours_load(order),
    }
    for line in sys.stdin:
        order = json.loads(line)
        answer(orders[order["do"]](api, order))


if __name__ == "__main__":
    main()
