"""A thousand waiters, and every hint is lost: when are they done, seen from the last result's end?

Another consumer takes each hint off the client's reply queue before the client does
(``tests/servers/thief.py``), so that the client finds its results by its slow look alone. It looks
every ``LLMCHATLINKER_FALLBACK_INTERVAL`` seconds, for all waiters in one query per thousand.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.bench import Bench, Costs, add_costs, costs_of, running
from benchmarks.figures import Bars, Report, Table
from benchmarks.servers import Place
from benchmarks.sides import Side, Worker, ours, temporary_place, workers
from llmchatlinker.settings import Settings
from tests.servers.thief import Thief

TIMEOUT = 120.0
#: Seconds beyond one interval: 1000 threads wake up on an interpreter that one of them can use.
SLACK = 2.0


@dataclass
class Outcome:
    """``seconds``: from the last result's end to the last waiter; ``times``: of each, worker ready to
    done."""

    times: list[float]
    failures: dict[str, int]
    taken: int
    seconds: float
    costs: Costs


def run(bench: Bench) -> Report:
    """See the module's docstring. Each has the machine to itself, and is measured once."""
    count = 200 if bench.quick else 1000
    interval = Settings().fallback_interval
    outcomes: dict[str, Outcome] = {}
    for name, steal in (("hints arrive", False), ("hints lost", True)):
        bench.step(f"hints-lost: {count} threads, {name}")
        with temporary_place(bench.servers, f"hints-{'lost' if steal else 'kept'}") as place:
            outcomes[name] = _wait(bench, ours(place), count, steal)
    lost = outcomes["hints lost"]
    table = Table(f"{count} threads in get(), looks every {interval} s", tuple(outcomes), [], False)
    both = list(outcomes.values())
    table.add("waiters done", "", [len(o.times) for o in both], "plain")
    table.add("hints taken away", "", [o.taken for o in both], "plain")
    table.add("last result final → last waiter done", "s", [o.seconds for o in both])
    table.add("the same, in intervals", "", [o.seconds / interval for o in both])
    table.add("worker ready → last waiter done", "s", [o.times[-1] for o in both])
    table.add_percentiles("worker ready → a waiter done", [o.times for o in both])
    add_costs(table, [o.costs for o in both])
    report = Report([table], raw={"fallback_interval": interval})
    report.raw |= {name: asdict(outcome) for name, outcome in outcomes.items()}
    report.plots = [
        Bars(f"{title}, {count} waiters", "s", tuple(zip(outcomes, values, strict=True)))
        for title, values in (
            ("last result final → last waiter done", [o.seconds for o in both]),
            ("worker ready → last waiter done", [o.times[-1] for o in both]),
        )
    ]
    for name, outcome in outcomes.items():
        if outcome.failures:
            report.failures.append(f"{name}: {outcome.failures}")
    if lost.taken < count:
        report.failures.append(f"only {lost.taken} of {count} hints were taken away")
    if lost.seconds > interval + SLACK:
        report.failures.append(
            f"without hints the last waiter was done {lost.seconds:.1f} s after its result"
        )
    return report


def _wait(bench: Bench, side: Side, count: int, steal: bool) -> Outcome:
    with workers(side, bench.directory):
        pass  # the queues are declared by a worker, and must be there before anything is sent
    with ExitStack() as stack:
        up = running(stack, bench, side)
        (client,) = up.clients
        client.send("waiters", count=count, type="USER_LIST", timeout=TIMEOUT)
        client.receive()
        thief = None
        if steal:
            ((queue,),) = side.place.sql("SELECT DISTINCT reply_to FROM instructions")
            thief = stack.enter_context(Thief(side.place.broker_url, queue))
        up.start_meter()
        worker = Worker(side, bench.directory)
        stack.callback(worker.stop)
        worker.start()
        up.add_worker(worker)
        answer = client.receive(TIMEOUT + 60)
        up.stop_meter(count)
        done_at: float = answer["moments"][-1]
        return Outcome(
            times=[moment - worker.ready_at for moment in answer["moments"]],
            failures=answer["failures"],
            taken=thief.taken if thief is not None else 0,
            seconds=done_at - _last_end(side.place, answer["now"], answer["wall"]),
            costs=costs_of(up),
        )


def _last_end(place: Place, now: float, wall: float) -> float:
    """When the last instruction became final, by the monotonic clock (PostgreSQL is on this machine)."""
    ((moment,),) = place.sql("SELECT extract(epoch FROM max(final_at)) FROM instructions")
    return now - (wall - float(moment))
