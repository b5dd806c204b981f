"""How large the processes of a world are after a round, beside what they may be."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from benchmarks.clients import Client
from benchmarks.servers import Place
from faults import sizes
from faults.crew import Crew
from faults.sizes import CLIENT, POSTGRESQL, RABBITMQ, WORKER, Sizes
from tests.servers.rabbitmq import PrivateRabbitMQ

#: Seconds in which a server notices that a process is gone.
NOTICE = 10.0
LOOK = 0.1
HARNESS = "the harness"

_POSTGRESQL = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'llmchatlinker'
"""


class Gauge:
    """Of one world. ``limits``: of its processes, by their kind."""

    def __init__(
        self,
        place: Place,
        rabbitmq: PrivateRabbitMQ,
        crew: Crew,
        client: Client,
        limits: Mapping[str, Mapping[str, int]],
    ) -> None:
        self._place = place
        self._rabbitmq = rabbitmq
        self._crew = crew
        self._client = client
        self._limits = limits

    def now(self) -> dict[str, list[Sizes]]:
        """Of all processes, by their kind."""
        pids = {
            WORKER: [member.pid for member in self._crew.members],
            CLIENT: [self._client.pid],
            HARNESS: [os.getpid()],
        }
        return {kind: self._of(each) for kind, each in pids.items()}

    def wrong(self) -> list[str]:
        """What is too much, once servers have had time to notice who is gone; as sentences."""
        end = time.monotonic() + NOTICE
        while True:
            now = self.now()
            every = [each for kind in now.values() for each in kind]
            found = sizes.of_nobody(self._connections(), every)
            for kind, limits in self._limits.items():
                for each in now[kind]:
                    found += sizes.beyond(each, limits, kind)
            if not found or time.monotonic() > end:
                return found
            time.sleep(LOOK)

    def growing(self) -> dict[str, float]:
        """What many rounds must not enlarge: of workers that nothing was done to, if there are any."""
        workers = self._of([member.pid for member in self._crew.spared or self._crew.members])
        found: dict[str, float] = {}
        for kind, each in ((WORKER, workers), (CLIENT, self._of([self._client.pid]))):
            largest = sizes.most(each)
            found[f"{kind}: MB of memory"] = largest.memory
            found |= {f"{kind}: {name}": count for name, count in largest.counts.items()}
        return found

    def _of(self, pids: list[int]) -> list[Sizes]:
        return [found for pid in pids if (found := sizes.of(pid, self._place)) is not None]

    def _connections(self) -> dict[str, int]:
        """Of the product's processes to PostgreSQL, and of all to RabbitMQ, as the servers see it."""
        return {
            POSTGRESQL: self._place.sql(_POSTGRESQL)[0][0],
            RABBITMQ: self._rabbitmq.connections(self._place.name),
        }
