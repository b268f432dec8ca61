"""Command line: `python -m bench [NAME …] [--short]` runs the named benchmarks, or all of them."""

import argparse
import subprocess
import sys
import time
from importlib import import_module

from bench.harness import CannotMeasureError, ChildFailedError, describe, write_results
from bench.table import write_table
from crosscontext.errors import CrossContextError, DataError

BENCHMARKS = (
    "views",
    "photographs",
    "step",
    "loop",
    "relations",
    "inference",
    "probe",
    "scaling",
    "faults",
    "time_to_accuracy",
)
WITHOUT_SHORT_FORM = ("time_to_accuracy",)
EXIT_FAILED, EXIT_CANNOT_MEASURE = 1, 3


def main() -> int:
    """Run one benchmark here, or several in a process each; then write the table anew."""
    parser = argparse.ArgumentParser("python -m bench", description="Measure against peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument(
        "--short", action="store_true", help="fewer rounds, smaller sizes: minutes, not hours"
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(BENCHMARKS):
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    if len(options.names) == 1:
        return run(options.names[0], options.short)
    exits: dict[str, int] = {}
    for name in options.names or BENCHMARKS:
        if options.short and name in WITHOUT_SHORT_FORM:
            print(
                f"{name}: has no short form; the table keeps its last run (python -m bench {name})",
                flush=True,
            )
            continue
        start = time.perf_counter()
        command = [sys.executable, "-m", "bench", name, *["--short"] * options.short]
        exits[name] = subprocess.run(command, check=False).returncode
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    if unmeasured := [name for name, code in exits.items() if code]:
        print(f"not measured: {', '.join(unmeasured)}", file=sys.stderr)
    return EXIT_FAILED if set(exits.values()) - {0, EXIT_CANNOT_MEASURE} else 0


def run(name: str, short: bool) -> int:
    """Measure in this process, and write results and table.

    Returns:
        The exit code: 3 where data or a peer are missing, which does not make a run of several fail.
    """
    try:
        machine = describe()
        rows = import_module(f"bench.{name}").measure(short)
    except (CannotMeasureError, ChildFailedError, CrossContextError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return EXIT_CANNOT_MEASURE if isinstance(error, CannotMeasureError | DataError) else EXIT_FAILED
    write_results(name, rows, short, machine)
    write_table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
