"""``python -m benchmarks [SCENARIO …] [--quick] [--out DIR]``.

A run in full writes what it has measured into the docs, too (benchmarks/report.py), also where it is
stopped before its end. A quick one leaves them alone, as do those with another ``--out``.

Exit codes: 0 all scenarios ran, 1 at least one failed (the others ran), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from benchmarks import machine, output, report
from benchmarks.bench import Bench
from benchmarks.results import RESULTS
from benchmarks.scenarios import ASKED_FOR, SCENARIOS
from benchmarks.servers import Servers

QUICK_RESULTS = machine.ROOT / ".bench" / "quick"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    default = f"default: all but {', '.join(ASKED_FOR)}"
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(SCENARIOS)} ({default})")
    parser.add_argument("--quick", action="store_true", help="fewer instructions")
    parser.add_argument("--out", type=Path, help="folder of the results")
    chosen = parser.parse_args()
    out: Path = chosen.out or (QUICK_RESULTS if chosen.quick else RESULTS)
    names = chosen.scenario or [name for name in SCENARIOS if name not in ASKED_FOR]
    unknown = [name for name in chosen.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    # SIGTERM would leave RabbitMQ behind: it is to unwind everything, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-bench-logs-"))
    failed: list[str] = []
    try:
        _run(names, chosen.quick, out, console, directory, failed)
    except KeyboardInterrupt:
        console.print("Stopped; the servers and processes of this run are ended.")
        return 130
    finally:
        if out == RESULTS:
            report.write()
            console.print("The figures in docs/ are those of benchmarks/results/ now.")
        if failed:
            console.print(f"The logs of its processes are in {directory}.")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if failed else 0


def _run(
    names: list[str],
    quick: bool,
    out: Path,
    console: Console,
    directory: Path,
    failed: list[str],
) -> None:
    described = machine.describe()
    console.print("Starting a private RabbitMQ and a private PostgreSQL.")
    with Servers() as servers:
        described["servers"] = servers.versions()
        bench = Bench(servers, directory, quick, console)
        for name in names:
            began = time.monotonic()
            try:
                found = SCENARIOS[name](bench)
            except Exception as error:  # whatever it is, the other scenarios may still run
                console.print(f"[red]{name} failed: {type(error).__name__}: {error}[/]")
                failed.append(name)
                continue
            found.seconds = time.monotonic() - began
            output.show(console, name, found)
            console.print(
                f"  {found.seconds:.0f} s. {output.keep(out, name, found, described, quick)}"
            )
            if found.failures:
                failed.append(name)
    if failed:
        console.print(f"[red]Failed: {', '.join(failed)}[/]")


if __name__ == "__main__":
    sys.exit(main())
