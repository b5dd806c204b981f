"""``python -m faults [SCENARIO …] [--rounds N] [--seed S] [--again] [--out DIR]``.

A scenario whose rounds are done, with the same seed, is not run again; one that was stopped, or that
is asked for with more rounds, goes on where it was.

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
from faults.results import HEAD, Result
from faults.scenarios import ALL

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
    try:
        for name in chosen.scenario or list(ALL):
            result = _one(name, chosen, directory)
            results.append(result)
    except KeyboardInterrupt:
        print("Stopped; the servers and processes of this run are ended. It can be resumed.")
        return 130
    print(HEAD)
    for result in results:
        print(result.line)
    broken = [result for result in results if result.breaches]
    for result in broken:
        print(f"\n{result.scenario}, seed {result.seed}:")
        print("\n".join(f"  {breach}" for breach in result.breaches))
    if broken:
        print(f"\nThe logs of its processes are in {directory}.")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return 1 if broken else 0


def _one(name: str, chosen: argparse.Namespace, directory: Path) -> Result:
    scenario = ALL[name]
    path = chosen.out / f"{name}.json"
    fresh = Result(name, chosen.seed, chosen.rounds or scenario.rounds)
    result = fresh if chosen.again else Result.begun(path, fresh)
    if result.done >= result.rounds:
        print(f"{name}: done before, see {path}")
        return result

    def keep(result: Result) -> None:
        result.keep(path)
        new = f", {len(result.breaches)} promises broken" if result.breaches else ""
        print(f"{name}: round {result.done} of {result.rounds}, {result.accepted} accepted{new}")

    result.machine = machine.describe()
    scenario.run(directory / name, result, keep)
    result.judge()
    result.keep(path)
    return result


if __name__ == "__main__":
    sys.exit(main())
