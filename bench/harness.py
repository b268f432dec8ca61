"""Contenders in turn → times → rows, with the machine that they were taken on.

benchmarks → **harness** → results/<name>.json → table
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from crosscontext.run_folder import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results"


class CannotMeasureError(Exception):
    """A benchmark lacks data or a peer; the message says which, and what to do."""


class ChildFailedError(Exception):
    """A process of a benchmark failed; it has said why on the error stream."""


class Timing(NamedTuple):
    """How long one contender took, over all rounds."""

    seconds: float
    """Median."""

    spread: float
    """Longest less shortest round, over the median."""


class Row(NamedTuple):
    """One claim, measured."""

    claim: str
    unit: str
    """Of ours, peer and limit. What is counted a second is better when larger, all else when smaller."""

    ours: float | None
    """None: not reached."""

    peer: float | None
    """None: not reached, or there is no peer."""

    peer_name: str
    """Empty: there is no peer."""

    ratio: float | None
    """How many times as good as the peer we are: above 1, ours is faster or smaller."""

    limit: float | None
    """What the machine allows at best, in the same unit; None where there is no such bound."""

    fraction: float | None
    """Of the limit that we reach, in [0, 1] up to noise."""

    note: str
    command: str


def compare(
    claim: str,
    unit: str,
    ours: float | None,
    peer: float | None,
    peer_name: str,
    command: str,
    limit: float | None = None,
    note: str = "",
) -> Row:
    """Make a row; ratio and fraction follow from the numbers, and are above 1 where ours is better."""

    def times_as_good(than: float | None) -> float | None:
        if ours is None or than is None:
            return None
        return ours / than if unit.endswith("/s") else than / ours

    return Row(
        claim, unit, ours, peer, peer_name, times_as_good(peer), limit, times_as_good(limit), note, command
    )


def clocked(work: Callable[[], object]) -> Callable[[], float]:
    """Turn work into a contender: a function that returns the seconds it took."""

    def contender() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return contender


def alternate(
    contenders: Mapping[str, Callable[[], float]], rounds: int, warmup: int = 0
) -> dict[str, Timing]:
    """Let all contenders run in turn, A B A B …, so that a slow minute of the machine hits all of them.

    Args:
        contenders: name → a function that runs once and returns its seconds (see `clocked`).
        rounds: that count.
        warmup: rounds before them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warmup + rounds):
        for name, contender in contenders.items():
            taken = contender()
            if number >= warmup:
                seconds[name].append(taken)
    return {name: timing_of(taken) for name, taken in seconds.items()}


def timing_of(seconds: Sequence[float]) -> Timing:
    """Summarise the rounds of one contender."""
    median = statistics.median(seconds)
    return Timing(median, (max(seconds) - min(seconds)) / median)


def spread_note(*timings: Timing) -> str:
    """Say how far the rounds of each contender lie apart."""
    return f"rounds within {' / '.join(f'{timing.spread:.0%}' for timing in timings)}"


def fresh(
    function: Callable[..., Any], environment: Mapping[str, str] | None = None, **arguments: Any
) -> Any:
    """Call a function of a module in a process of its own: allocator, threads and peak memory start anew.

    Args:
        function: of a module's top level; it returns something that JSON can hold.
        environment: variables to add.
        arguments: of the function, such as JSON can hold.

    Raises:
        ChildFailedError: the process failed.
    """
    name = f"{function.__module__}:{function.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "bench.harness", name, json.dumps(arguments)],
        env={**os.environ, **(environment or {})},
        cwd=HERE.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ChildFailedError(f"{name} failed with exit code {done.returncode}; its message stands above.")
    return json.loads(done.stdout.splitlines()[-1])


def require(package: str) -> None:
    """Make sure that a peer is installed.

    Raises:
        CannotMeasureError: it is not.
    """
    if find_spec(package) is None:
        raise CannotMeasureError(
            f"The peer {package!r} is not installed. Install the benchmarks' group: pip install -e '.[bench]'"
        )


def describe() -> dict[str, Any]:
    """Describe the machine, and how busy it was."""
    import torch

    from crosscontext.machine import describe_machine

    described: dict[str, Any] = describe_machine(torch.device("cpu"))
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        described["processor"] = next(models, ": unknown").partition(":")[2].strip()
    try:
        described["lightly"] = version("lightly")
    except PackageNotFoundError:
        described["lightly"] = None
    described["busy"] = busy_share()
    return described


def busy_share(seconds: float = 0.5) -> float | None:
    """Watch for a moment what share of the cores is at work: near 0 before a measurement to be trusted.

    Returns:
        A share in [0, 1], None where the system does not tell.
    """
    stat = Path("/proc/stat")
    if not stat.exists():
        return None

    def ticks() -> tuple[int, int]:
        user, nice, system, idle, waiting, *others = map(int, stat.read_text().splitlines()[0].split()[1:8])
        return user + nice + system + sum(others), idle + waiting

    worked, rested = ticks()
    time.sleep(seconds)
    now_worked, now_rested = ticks()
    return (now_worked - worked) / max(now_worked - worked + now_rested - rested, 1)


def write_results(
    name: str,
    rows: Iterable[Row | Mapping[str, Any]],
    short: bool,
    machine: Mapping[str, Any],
    folder: Path = RESULTS,
) -> Path:
    """Write what a benchmark has measured, whole or not at all.

    Args:
        name: of the benchmark, and of the file.
        rows: as `Row`, or as mappings with the arguments of `compare`.
        short: whether it was the short form.
        machine: of `describe`, before the start.
        folder: for the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = [row if isinstance(row, Row) else _row_of(row) for row in rows]
    content = {
        "name": name,
        "form": "short" if short else "full",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "rows": [row._asdict() for row in made],
    }
    path = folder / f"{name}.json"
    write_atomically(
        path, lambda file: file.write(json.dumps(content, indent=1, ensure_ascii=False).encode())
    )
    return path


def _row_of(values: Mapping[str, Any]) -> Row:
    return compare(**{key: value for key, value in values.items() if key not in ("ratio", "fraction")})


def _child(name: str, arguments: str) -> None:
    module, function = name.split(":")
    print(json.dumps(getattr(import_module(module), function)(**json.loads(arguments))))


if __name__ == "__main__":
    _child(*sys.argv[1:])
