"""Everything of one scenario while it runs, and what a round is."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.clients import Client
from benchmarks.servers import Place
from benchmarks.sides import Side, ours
from faults import failpoints
from faults.checker import Check, Verdict, too_many, wait_until_quiet
from faults.clock import WrongClock
from faults.crew import Crew, disarm
from faults.journal import Journal
from faults.observer import Observer
from faults.plan import Plan, Scene, Size, draw
from faults.provider import CountingProvider
from faults.servers import FaultServers

#: Seconds. Deadlines are far behind the patience: what is only ended by its deadline was lost.
PATIENCE = 400.0
DEADLINE = 550.0
SETTINGS: dict[str, object] = {
    "sweep_interval": 1.0,
    "sweep_grace": 4.0,
    "fallback_interval": 1.0,
    "deadline": DEADLINE,
    "generation_deadline": DEADLINE,
    # A worker that is killed again and again looks like poison; that is another scenario.
    "starts": 50,
    "provider_retries": 1,
    # The provider's failures shall be seen, and not be waited out.
    "cooldown_failures": 1_000_000,
    "provider_read_timeout": 4.0,
    # Shorter than some calls, so that some of them are handed back.
    "stop_timeout": 1.0,
}

#: Where workers die: what a dead one had is taken over soon.
SHORT_LEASE: dict[str, object] = {"lease": 6.0}
#: Where no server goes away: one that is slow, on a busy machine, is not to be taken for one.
PATIENT: dict[str, object] = {"client_patience": 30.0, "confirm_timeout": 30.0}

#: Breaks something while the clients are at work; returns how often what was done.
Break = Callable[["World", random.Random], Counter[str]]


@dataclass
class Round:
    """How a round went. ``faults``: what was broken, how often; ``deaths``: workers, by exit code;
    ``memory``: of the largest worker behind it, in MB; ``threads``: of the one that has most.
    """

    verdict: Verdict
    faults: Counter[str]
    seconds: float
    connections: dict[str, int] = field(default_factory=dict)
    deaths: Counter[int] = field(default_factory=Counter)
    memory: float = 0.0
    threads: int = 0


class World:
    """A context manager: a place on the servers, workers, a client, a provider.

    ``beside``: what goes on during all rounds of the scenario. ``short``: it shall not take long.
    ``look``: compares the memories of the last round once more.
    """

    def __init__(
        self,
        servers: FaultServers,
        name: str,
        directory: Path,
        *,
        workers: int = 3,
        short: bool = False,
        include: Iterable[str] = (),
        settings: dict[str, object] | None = None,
        wrong_clock: bool = False,
    ) -> None:
        self.servers = servers
        self.folder = directory / "armed"
        self.folder.mkdir(parents=True)
        self.short = short
        self.beside: object = None
        self.clock = WrongClock(directory) if wrong_clock else None
        self.provider = CountingProvider()
        self.place: Place
        self.side: Side
        self.crew: Crew
        self.client: Client
        self.look: Callable[[], Verdict]
        self._name = name
        self._directory = directory
        self._workers = workers
        self._include = ",".join((failpoints.MODULE, *include))
        self._settings = SETTINGS | (settings or {})
        self._up = ExitStack()
        self._llm_id = 0

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._up.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._up.close()

    def _start(self) -> None:
        self._up.enter_context(self.provider)
        self.place = self.servers.add_place(self._name)
        self._up.callback(self.servers.remove_place, self.place)
        side = ours(self.place, self._name, **self._settings)
        more = {failpoints.FOLDER: str(self.folder)}
        self.side = replace(side, settings=dict(side.settings) | more)
        first = {} if self.clock is None else self.clock.environment
        crew = Crew(self.side, self._directory, self._workers, self._include, first)
        self.crew = self._up.enter_context(crew)
        self.client = Client(self.side, self._directory, "faults.client")
        self._up.callback(self.client.stop)
        self.client.receive()
        endpoint = self.provider.base_url
        provider = self.do("LLM_PROVIDER_ADD", name="scripted", api_endpoint=endpoint)["provider"]
        llm = self.do("LLM_ADD", provider_id=provider["provider_id"], llm_name="echo")["llm"]
        self._llm_id = llm["llm_id"]

    def do(self, type_name: str, **data: Any) -> dict[str, Any]:
        """An instruction that must succeed; its data."""
        self.client.send("run", run=type_name, data=data)
        envelope = self.client.receive(PATIENCE)["envelope"]
        if envelope["status"] != "success":
            raise RuntimeError(f"{type_name} failed: {envelope}")
        result: dict[str, Any] = envelope["data"]
        return result

    def scene(self, chats: int) -> Scene:
        """A user, and new chats of the user's."""
        statement = """
            WITH made AS (INSERT INTO chats (title) SELECT 'scene' FROM generate_series(1, %s)
                          RETURNING id),
                 joined AS (INSERT INTO chat_members (chat_id, user_id) SELECT id, 1 FROM made)
            SELECT id FROM made ORDER BY id
        """
        rows = self.place.sql(statement, chats)
        return Scene(1, self._llm_id, tuple(row[0] for row in rows))

    # --- a round ----------------------------------------------------------------------------------

    def round(
        self,
        name: str,
        rng: random.Random,
        size: Size,
        breaking: Break,
        *,
        allowed: Iterable[str] = (),
        manners: tuple[str, ...] = (),
        change: Callable[[Plan, random.Random], Plan] = lambda plan, _: plan,
    ) -> Round:
        """The clients submit, ``breaking`` breaks, all becomes quiet, and the memories are compared."""
        began = time.monotonic()
        plan = change(draw(rng, name, self.scene(size.chats), size, *manners), rng)
        ((after,),) = self.place.sql("SELECT coalesce(max(seq), 0) FROM instructions")
        journal = Journal()
        with Observer(self.place, after) as observer:
            self.client.send("plan", tracks=plan.as_order(), patience=PATIENCE)
            reading = threading.Thread(
                target=journal.read, args=(self.client, 2 * PATIENCE), name="journal"
            )
            reading.start()
            faults = breaking(self, rng)
            reading.join()
            faults += Counter({f"killed {name}": n for name, n in disarm(self.folder).items()})
            self.crew.wait_until_ready()
            left = wait_until_quiet(
                self.place, self.servers.rabbitmq, len(self.crew.members), PATIENCE
            )
            codes = tuple(allowed)
            self.look = lambda: Check(self.place, self.provider, plan, journal, after, codes).run()
            verdict = self.look()
            if left:
                verdict.breach(f"not quiet: {left}")
            self._probe(verdict)
            observer.look()
            for known in observer.changed:
                verdict.breach(f"{known}: its envelope has changed")
        connections = self._connections()
        for sentence in too_many(connections, len(self.crew.members) + 1):
            verdict.breach(sentence)
        memory = max(member.resident() for member in self.crew.members)
        return Round(
            verdict,
            faults,
            time.monotonic() - began,
            connections,
            memory=round(memory, 1),
            threads=max(member.threads() for member in self.crew.members),
        )

    def _probe(self, verdict: Verdict) -> None:
        """Whether all of it still works: an instruction and a turn."""
        (chat,) = self.scene(1).chat_ids
        data = {"user_id": 1, "chat_id": chat, "llm_id": self._llm_id, "user_input": "probe"}
        for type_name, given in (("USER_LIST", {}), ("LLM_RESPONSE_GENERATE", data)):
            try:
                self.do(type_name, **given)
            except Exception as error:
                verdict.breach(f"the probe: {error}")

    def _connections(self) -> dict[str, int]:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        return {
            "postgresql": self.place.sql(sql)[0][0] - 1,
            "rabbitmq": self.servers.rabbitmq.connections(self.place.name),
        }
