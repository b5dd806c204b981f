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
from functools import partial
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
    """All submitted, then all collected, by ``threads`` that share the work.

    ``times``: of each, from its submission to the moment at which it was collected, which is done in
    the order of submission.
    """
    number = order.get("threads", 1)
    shares = _shares(api, order, number)
    ready = threading.Barrier(number + 1)
    found: list[Order] = []

    def one(submits: list[Callable[[], Any]], until: float) -> None:
        ready.wait()
        found.append(_burst(api, submits, until))

    until = time.monotonic() + order.get("timeout", TIMEOUT)
    threads = [threading.Thread(target=one, args=(mine, until)) for mine in shares]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    ready.wait()
    for thread in threads:
        thread.join()
    ended = time.monotonic()
    failures: Counter[str] = Counter()
    for item in found:
        failures.update(item["failures"])
    return {
        "began": began,
        "submitted": max(item["submitted"] for item in found) - began,
        "seconds": ended - began,
        "ended": ended,
        "times": [seconds for item in found for seconds in item["times"]],
        "failures": dict(failures),
    }


def _shares(api: Api, order: Order, number: int) -> list[list[Callable[[], Any]]]:
    datas, kind = _datas(order), order["type"]
    calls: list[Callable[[], Any]]
    calls = [partial(api.submit, kind, datas[n % len(datas)]) for n in range(order["count"])]
    return [calls[n::number] for n in range(number)]


def _burst(api: Api, submits: list[Callable[[], Any]], until: float) -> Order:
    failures: Counter[str] = Counter()
    submitted: list[tuple[Any, float]] = []
    for submit in submits:
        began = time.monotonic()
        try:
            submitted.append((submit(), began))
        except Exception as error:  # what kind of failure it is, is the figure
            failures[type(error).__name__] += 1
    last, times = time.monotonic(), []
    for result, began in submitted:
        # What has failed by the end of the time fails at once: no wait for each of a thousand.
        if _collect(api, result, max(0.1, until - time.monotonic()), failures):
            times.append(time.monotonic() - began)
    return {"submitted": last, "times": times, "failures": failures}


def waiters(api: Api, order: Order) -> Order:
    """A thread per instruction waits in ``get()``, as it comes; ``moments`` are when each was done."""
    results = [api.submit(order["type"], {}) for _ in range(order["count"])]
    failures: Counter[str] = Counter()
    lock = threading.Lock()
    waiting = threading.Barrier(order["count"] + 1)
    moments: list[float] = []

    def wait(result: Any) -> None:
        mine: Counter[str] = Counter()
        waiting.wait()
        good = _collect(api, result, order["timeout"], mine, default=True)
        with lock:
            failures.update(mine)
            moments.extend([time.monotonic()] if good else [])

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
) -> bool:
    """Whether it is there, and good."""
    try:
        if api.collect(result, timeout, default=default):
            return True
        failures["error envelope"] += 1
    except Exception as error:  # what kind of failure it is, is the figure
        failures[type(error).__name__] += 1
    return False


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
