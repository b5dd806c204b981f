"""How many workers a load needs: a small queueing model, fed with what benchmarks have measured.

An instruction queues for two kinds of servers. A *slot* of ``llm.generate`` holds one call of a
provider, for as long as it takes. The *interpreter* of a worker process does one thing at a time, so a
process uses one core at most. Arrivals are at random:

* who waits: Erlang's C formula (https://en.wikipedia.org/wiki/Erlang_(unit)#Erlang_C_formula);
* for how long, where times vary otherwise than exponentially: Allen and Cunneen's approximation for
  G/G/c, Wq = C(c, a) / (c/S - rate) * (ca2 + cs2) / 2
  (A. O. Allen, Probability, Statistics, and Queueing Theory, 1990, section 5.3).

Times are seconds, rates per second, memory in MB. docs/scaling.md says where the model fails.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from llmchatlinker import measured
from llmchatlinker.errors import InvalidData
from llmchatlinker.topology import CONTROL, DATABASE, GENERATE

#: Connections of a worker process to RabbitMQ beside those of its pool: what it consumes with (remote
#: control and what workers tell each other are channels of it), Celery's events (``consumer.py``), hints
#: and pushes (``results/hints.py``). All else takes one of the pool: stages that hand on, the sweeper,
#: and who takes in dead letters.
BROKER_CONNECTIONS = 3
#: The same of a client process: for its hints, for pushes once it follows a response, and for hints of
#: its own once a cancel of it has ended something.
CLIENT_BROKER_CONNECTIONS = 3
#: More slots or processes than this are a mistake in the question.
MOST = 1_000_000


# --- queues ---------------------------------------------------------------------------------------


def erlang_c(servers: int, load: float) -> float:
    """The share of arrivals that wait, 0 to 1. ``load``: rate times service time, in Erlang.

    1 where the servers can't carry the load. By the recursion of Erlang's B, which never overflows.
    """
    if load <= 0:
        return 0.0
    if load >= servers:
        return 1.0
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return _waiting(blocked, servers, load)


def _waiting(blocked: float, servers: int, load: float) -> float:
    """Erlang's C from his B."""
    use = load / servers
    return blocked / (1 - use * (1 - blocked))


def mean_wait(servers: int, rate: float, seconds: float, variation: float = 1.0) -> float:
    """How long an arrival waits on average: infinite where the load can't be carried.

    ``variation``: standard deviation of the service time over its mean (1: exponential, 0: always the
    same). Arrivals are a Poisson process.
    """
    load = rate * seconds
    if load <= 0:
        return 0.0
    if load >= servers:
        return math.inf
    share = erlang_c(servers, load)
    return share / (servers / seconds - rate) * (1 + variation**2) / 2


def servers_for(
    rate: float, seconds: float, wait: float, variation: float = 1.0, use: float = 1.0
) -> int:
    """The fewest servers on which the mean wait is at most ``wait``, each busy at most ``use``."""
    load = rate * seconds
    if load <= 0:
        return 0
    blocked, number = 1.0, 0
    while number < MOST:
        number += 1
        blocked = load * blocked / (number + load * blocked)
        if load >= number or load > use * number:
            continue
        mean = _waiting(blocked, number, load) / (number / seconds - rate) * (1 + variation**2) / 2
        if mean <= wait:
            return number
    raise InvalidData(f"More than {MOST} servers would be needed.")


# --- what things cost -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Costs:
    """What an instruction costs, as measured. CPU seconds, MB.

    The defaults: llmchatlinker/measured.py, and ADR 0004 for a slot.
    """

    #: CPU of worker processes for one cycle that reads: a third each for decode, execute, store.
    cycle: float = measured.CYCLE
    #: The same for a generation, in cycles.
    generation: float = measured.GENERATION
    client: float = measured.CLIENT
    rabbitmq: float = measured.RABBITMQ
    postgresql: float = measured.POSTGRESQL
    process_memory: float = measured.PROCESS_MEMORY
    #: A thread with a call under way, less its texts.
    slot_memory: float = 0.1

    @property
    def whole_cycle(self) -> float:
        """CPU of everybody, for those who share one machine."""
        return self.cycle + self.client + self.rabbitmq + self.postgresql


#: Row of a benchmark's table -> field; a row of CPU is seconds per 1000.
_ROWS = {
    "CPU of the workers per 1000": ("cycle", 1000.0),
    "CPU of the clients per 1000": ("client", 1000.0),
    "CPU of RabbitMQ per 1000": ("rabbitmq", 1000.0),
    "CPU of PostgreSQL per 1000": ("postgresql", 1000.0),
    "memory of the workers": ("process_memory", 1.0),
}


def costs_of(path: Path, column: int = 0) -> Costs:
    """The costs in a benchmark's JSON (``latency``, ``throughput``, ``scale``), by its first table.

    Raises InvalidData where the file is none, or has none of the figures.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["tables"][0]["rows"]
        found = {
            field: row["values"][column] / divisor
            for row in rows
            for field, divisor in [_ROWS.get(row["name"], ("", 1.0))]
            if field and row["values"][column]
        }
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(f"{path} is no benchmark's JSON ({type(error).__name__}).") from None
    if "cycle" not in found:
        raise InvalidData(f"{path} does not say what CPU the workers took.")
    return replace(Costs(), **found)


# --- what a load needs ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Load:
    """At the busiest time. ``rate``: generations per second, ``other_rate``: all other instructions.

    ``call_seconds`` and ``call_variation`` are of a provider's calls. ``wait``: mean seconds that a
    generation may wait for a slot. ``use``: how busy an interpreter may be. ``spare``: processes more
    of each unit, for those that die. ``call_kilobytes``: history and answer of a call.
    """

    rate: float
    call_seconds: float
    other_rate: float = 0.0
    call_variation: float = 1.0
    wait: float = 0.1
    use: float = 0.6
    concurrency: int = 32
    pool_size: int = 10
    broker_pool_size: int = 10
    spare: int = 0
    call_kilobytes: float = 100.0


@dataclass(frozen=True, slots=True)
class Unit:
    """Worker processes of one or more queues. ``use``: of each interpreter, 0 to 1."""

    queues: str
    processes: int
    threads: int
    use: float
    memory: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load needs. Connections are upper bounds; ``cores`` are of workers."""

    units: tuple[Unit, ...]
    slots: int
    waiting: float
    mean_wait: float
    postgresql_connections: int
    rabbitmq_connections: int
    memory: float
    cores: float
    postgresql_cores: float
    rabbitmq_cores: float

    @property
    def processes(self) -> int:
        """Of all units."""
        return sum(unit.processes for unit in self.units)


#: Mean seconds that a stage of milliseconds may wait for an interpreter.
STAGE_WAIT = 0.05


def plan(load: Load, costs: Costs | None = None) -> Plan:
    """What ``load`` needs, with a worker service for each kind of queue as Compose has them."""
    costs = costs or Costs()
    every, stage = load.rate + load.other_rate, costs.cycle / 3
    generating = costs.generation * costs.cycle - 2 * stage
    slots = servers_for(load.rate, load.call_seconds, load.wait, load.call_variation)
    calling = _unit(GENERATE, load.rate, generating, load, costs, slots)
    units = (
        _unit(CONTROL, every, stage, load, costs),
        _unit("user, chat, llm", load.other_rate, stage, load, costs),
        calling,
        _unit(DATABASE, every, stage, load, costs),
    )
    processes = sum(unit.processes for unit in units)
    having = calling.processes * calling.threads
    return Plan(
        units=units,
        slots=having,
        waiting=erlang_c(having, load.rate * load.call_seconds),
        mean_wait=mean_wait(having, load.rate, load.call_seconds, load.call_variation),
        postgresql_connections=processes * load.pool_size,
        rabbitmq_connections=processes * (BROKER_CONNECTIONS + load.broker_pool_size),
        memory=sum(unit.processes * unit.memory for unit in units),
        cores=(load.other_rate + load.rate * costs.generation) * costs.cycle,
        postgresql_cores=(load.other_rate + load.rate * costs.generation) * costs.postgresql,
        rabbitmq_cores=every * costs.rabbitmq,
    )


def _unit(
    queues: str, rate: float, seconds: float, load: Load, costs: Costs, slots: int = 0
) -> Unit:
    needed = max(1, servers_for(rate, seconds, STAGE_WAIT, use=load.use))
    processes = max(needed, math.ceil(slots / load.concurrency)) + load.spare
    under_way = load.concurrency * load.call_kilobytes / 1000 if slots else 0.0
    memory = costs.process_memory + load.concurrency * costs.slot_memory + under_way
    return Unit(queues, processes, load.concurrency, rate * seconds / processes, memory)


def cycles_per_second(processes: int, cores: int, costs: Costs) -> float:
    """The most that ``processes`` workers do on one machine that everybody shares.

    The law of utilisation: no interpreter is busy more than all the time, nor are the cores.
    """
    return min(processes / costs.cycle, cores / costs.whole_cycle)
