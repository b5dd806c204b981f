"""``python -m faults [SCENARIO …] [--rounds N] [--seed S] [--again] [--out DIR]``.

A scenario whose rounds are done, with the same seed and of the same commit, is not run again; one that
was stopped, or that is asked for with more rounds, goes on where it was. Results of another commit or
seed, or with ``--again``, are begun anew.

Exit codes: 0 all promises were kept, 1 at least one was not, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import machine
from faults import commit
from faults.results import HEAD, Result
from faults.scenarios import ALL
from faults.servers import FaultServers

RESULTS = Path(__file__).resolve().parent / "results"
SEED = 1


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(ALL)} (default: all)")
    parser.add_argument("--rounds", type=int, help="of each scenario, instead of its own number")
    parser.add_argument("--seed", type=int, default=SEED, help="what is broken, and when")
    parser.add_argument("--again", action="store_true", help="also what was done before")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.scenario if name not in ALL]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(ALL)}")
    # SIGTERM would leave the servers behind: it is to unwind everything, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-faults-"))
    results: list[Result] = []
    code = commit.current()
    try:
        with FaultServers() as servers:
            names = chosen.scenario or list(ALL)
            results.extend(_one(name, chosen, code, servers, directory) for name in names)
    except KeyboardInterrupt:
        print("Stopped; the servers and processes of this run are ended. It can be resumed.")
        return 130
    print(HEAD)
    for result in results:
        print(result.line)
    broken = [result for result in results if result.broken]
    for result in broken:
        print(f"\n{result.scenario}, seed {result.seed}:")
        print("\n".join(f"  {breach}" for breach in result.broken))
    if broken:
        print(f"\nThe logs of its processes are in {directory}.")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if broken else 0


def _one(
    name: str, chosen: argparse.Namespace, code: str, servers: FaultServers, directory: Path
) -> Result:
    scenario = ALL[name]
    path = chosen.out / f"{name}.json"
    result = fresh = Result(name, chosen.seed, chosen.rounds or scenario.rounds, code)
    if not chosen.again:
        result, why = Result.begun(path, fresh)
        if why:
            print(f"{name}: begun anew, since {why}", flush=True)
    # A few rounds need not reach what the full number of them has to.
    goals = scenario.goals if result.rounds >= scenario.rounds else {}
    if result.done >= result.rounds and not result.lacks(goals):
        print(f"{name}: done before, see {path}", flush=True)
        return result

    def keep(result: Result) -> None:
        result.keep(path)
        new = f", {len(result.breaches)} promises broken" if result.breaches else ""
        done = f"round {result.done} of {result.rounds}, {result.accepted} accepted"
        print(f"{name}: {done}, {result.seconds:.0f} s{new}", flush=True)

    result.machine = machine.describe() | {"servers": servers.versions()}
    scenario.run(servers, directory / name, result, goals, keep)
    result.judge(goals)
    result.keep(path)
    return result


if __name__ == "__main__":
    sys.exit(main())
