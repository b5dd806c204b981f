"""What a process does in the scenarios ``turns`` and ``cancel``: turns that race, and turns that are
cancelled while they speak. Moments are of the system-wide monotonic clock, times are seconds.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

Order = dict[str, Any]
TIMEOUT = 120.0
#: A worker looks every so often who is to be ended (streaming/watcher.py): nobody is to keep step.
STEP = 0.2


def pairs(order: Order) -> Order:
    """``count`` times two turns of ``data`` that are submitted at the same moment, one pair after the
    other; how often each code came of it (None: an answer)."""
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    codes: Counter[str] = Counter()
    lock = threading.Lock()
    start = threading.Barrier(2, timeout=TIMEOUT)

    def race() -> None:
        for _ in range(order["count"]):
            start.wait()
            result = client.submit("LLM_RESPONSE_GENERATE", **order["data"])
            envelope = result.get(timeout=TIMEOUT)
            code = envelope.get("error", {}).get("code") or "answered"
            with lock:
                codes[code] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=race) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": time.monotonic() - began, "codes": dict(codes)}


def cancels(order: Order) -> Order:
    """Each of ``datas`` is asked and, a while after its first delta, cancelled: when that was, by the
    chat's id, and how long it took until its follower had the last event."""
    from llmchatlinker.client import LLMChatLinkerClient

    client = LLMChatLinkerClient()
    moments: list[tuple[int, float]] = []
    ended: list[float] = []
    good = 0
    for data in order["datas"]:
        stream = client.stream(**data)
        for event in stream:
            if event.type == "response.delta":
                break
        time.sleep(random.uniform(0, STEP))
        moment = time.monotonic()
        client.submit("LLM_RESPONSE_CANCEL", instruction_id=stream.instruction_id)
        moments.append((data["chat_id"], moment))
        for event in stream:
            if event.is_last:
                ended.append(time.monotonic() - moment)
                good += event.type == "response.cancelled"
    return {"moments": moments, "ended": ended, "good": good}
