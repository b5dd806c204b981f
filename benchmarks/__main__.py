"""``python -m benchmarks [SCENARIO …] [--quick] [--out DIR]``.

Exit codes: 0 all scenarios ran, 1 at least one failed (the others ran), 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks import machine, output
from benchmarks.bench import Bench
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import Servers

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("scenario", nargs="*", help=f"{', '.join(SCENARIOS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer instructions")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    chosen = parser.parse_args()
    unknown = [name for name in chosen.scenario if name not in SCENARIOS]
    if unknown:
        parser.error(f"no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    # SIGTERM would leave RabbitMQ behind: it is to unwind everything, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console()
    directory = Path(tempfile.mkdtemp(prefix="llmchatlinker-bench-logs-"))
    failed: list[str] = []
    try:
        _run(
            chosen.scenario or list(SCENARIOS), chosen.quick, chosen.out, console, directory, failed
        )
    except KeyboardInterrupt:
        console.print("Stopped; the servers and processes of this run are ended.")
        return 130
    finally:
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
            try:
                report = SCENARIOS[name](bench)
            except Exception as error:  # whatever it is, the other scenarios may still run
                console.print(f"[red]{name} failed: {type(error).__name__}: {error}[/]")
                failed.append(name)
                continue
            output.show(console, name, report)
            console.print(f"  {output.keep(out, name, report, described, quick)}")
            if report.failures:
                failed.append(name)
    if failed:
        console.print(f"[red]Failed: {', '.join(failed)}[/]")


if __name__ == "__main__":
    sys.exit(main())
