"""How time and memory grow with images, resolution, slots, embedding, batch and backbone → scaling.md.

Each point is a process of its own: seconds are the median of its steps, megabytes its peak of resident
memory, the libraries included. The exponent b is that of the power law a · size^b through the points (least
squares in logarithms): 1 is proportional, 0 does not grow.
"""

import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypedDict

from PIL import Image

from bench import processes
from bench.harness import (
    HERE,
    Row,
    Timing,
    alternate,
    clocked,
    compare,
    describe,
    fresh,
)
from bench.step import our_settings, our_step
from bench.table import conditions, significant
from crosscontext.datasets import Dataset
from crosscontext.loading import Loader
from crosscontext.run_folder import write_atomically
from crosscontext.views import ViewsSettings, resolve

REPORT = HERE / "scaling.md"
COMMAND = "python -m bench scaling"
BASE = {"side": 32, "slots": 4096, "embedding": 128, "batch": 64, "width": 0.25}
BASE_TEXT = "CGH, ResNet-18 × 0.25 with the small-image stem, 32 px, batch 64, K = 4096, D = 128"
BAR = 40  # characters of the longest bar
VERBS = ("--help", "pretrain --help", "evaluate --help")


class Cost(TypedDict):
    """Of one point."""

    seconds: float
    megabytes: float


class Axis(NamedTuple):
    """What is varied, all else being as in the base."""

    title: str
    what: str
    """Whose seconds these are."""

    cost: Callable[..., Cost]
    argument: str
    values: tuple[float, ...]
    """The short form leaves out the last one."""


def step_cost(steps: int, **changes: Any) -> Cost:
    """Do training steps of the base with changes, on views that are ready."""
    size: dict[str, Any] = BASE | changes
    settings = our_settings(
        "cgh",
        size["width"],
        batch_size=size["batch"],
        image_size=size["side"],
        method={
            "name": "cgh",
            "memory": {"slots": size["slots"], "start": "random"},
            "momentum": 0.99,
            "contexts": {"global_width": size["embedding"], "hyper_width": size["embedding"]},
        },
    )
    step = our_step(settings)
    seconds = [clocked(partial(step, number))() for number in range(2 + steps)]
    return {"seconds": statistics.median(seconds[2:]), "megabytes": peak_megabytes()}


def data_cost(steps: int, images: int) -> Cost:
    """Order an epoch and make its first batches."""
    views = resolve(ViewsSettings(), int(BASE["side"]))
    start = time.perf_counter()
    loader = Loader(OnePicture(images), views, {"weak": 1, "strong": 1}, 32, int(BASE["batch"]), 0, workers=0)
    for _ in islice(loader.batches(0, steps), steps):
        pass
    return {"seconds": (time.perf_counter() - start) / steps, "megabytes": peak_megabytes()}


class OnePicture(Dataset):
    """The same picture under many names."""

    def __init__(self, count: int):
        self.names, self.labels = [f"{number:07}.jpg" for number in range(count)], None
        self._picture = Image.new("RGB", (32, 32))

    def image(self, index: int) -> Image.Image:  # noqa: ARG002 (all are the same)
        """Copy the picture."""
        return self._picture.copy()


def peak_megabytes() -> float:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, kilobytes elsewhere


AXES = (
    Axis(
        "images N",
        "a batch, ordering the epoch included",
        data_cost,
        "images",
        (1_000, 10_000, 100_000, 1_000_000),
    ),
    Axis("resolution (px)", "a step", step_cost, "side", (16, 32, 64, 96)),
    Axis("slots K", "a step", step_cost, "slots", (1024, 4096, 16_384, 65_536)),
    Axis("embedding D", "a step", step_cost, "embedding", (64, 128, 256, 512)),
    Axis("batch B", "a step", step_cost, "batch", (32, 64, 128, 256)),
    Axis("backbone width", "a step", step_cost, "width", (0.125, 0.25, 0.5, 1.0)),
)


def measure(short: bool) -> list[Row]:
    """Measure all axes and the start of the command line, and write scaling.md."""
    machine = describe()
    parts = [measured_axis(axis, short) for axis in AXES]
    starts = start_times(rounds=3 if short else 7)
    head = (
        "# How cost grows\n\n"
        f"Written by `{COMMAND}{' --short' * short}`; the head of scaling.py says what the numbers mean.\n"
        f"{conditions(machine)}.\n"
        f"Base: {BASE_TEXT}.\n"
    )
    lines = ["## start of the command line", "", "| command | seconds |", "|---|---|"]
    lines += [f"| `{name}` | {significant(timing.seconds)} |" for name, timing in starts.items()]
    text = "\n".join([head, *parts, *lines, ""])
    write_atomically(REPORT, lambda file: file.write(text.encode()))
    return [
        *processes.measure(short),
        compare(
            "`crosscontext --help`",
            "s",
            starts["crosscontext --help"].seconds,
            None,
            "",
            COMMAND,
            starts["python -c pass"].seconds,
            "limit: Python itself; [how cost grows](scaling.md)",
        ),
    ]


def measured_axis(axis: Axis, short: bool) -> str:
    """Measure the points of an axis in turn, and write them as a section."""
    values = axis.values[: -1 if short else None]
    megabytes: dict[str, float] = {}

    def contender(value: float) -> Callable[[], float]:
        def run() -> float:
            point: Cost = fresh(axis.cost, None, **{"steps": 3 if short else 9, axis.argument: value})
            megabytes[f"{value:,}"] = point["megabytes"]
            return point["seconds"]

        return run

    timings = alternate({f"{value:,}": contender(value) for value in values}, rounds=1 if short else 3)
    return section(axis, values, timings, megabytes)


def section(
    axis: Axis, values: Sequence[float], timings: Mapping[str, Timing], megabytes: Mapping[str, float]
) -> str:
    """Write an axis as a table with bars, and its exponent."""
    seconds = [timings[f"{value:,}"].seconds for value in values]
    peaks = [megabytes[f"{value:,}"] for value in values]
    lines = [
        f"## {axis.title}",
        "",
        f"Seconds of {axis.what}; exponent {exponent(values, seconds):.2f}.",
        "",
        f"| {axis.title} | seconds | | megabytes |",
        "|---|---|---|---|",
    ]
    for value, second, peak in zip(values, seconds, peaks, strict=True):
        bar = "█" * max(1, round(BAR * second / max(seconds)))
        lines.append(f"| {value:,} | {significant(second)} | {bar} | {peak:.0f} |")
    return "\n".join([*lines, ""])


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Fit cost = a · size^b by least squares in logarithms.

    Returns:
        b.
    """
    logs = [math.log(size) for size in sizes]
    return statistics.linear_regression(logs, [math.log(cost) for cost in costs]).slope


def start_times(rounds: int) -> dict[str, Timing]:
    """Time the command line's help, and Python doing nothing."""
    commands = {f"crosscontext {verb}": ["-m", "crosscontext", *verb.split()] for verb in VERBS}
    commands["python -c pass"] = ["-c", "pass"]

    def contender(arguments: list[str]) -> Callable[[], float]:
        command = [sys.executable, *arguments]
        return clocked(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))

    return alternate({name: contender(arguments) for name, arguments in commands.items()}, rounds, warmup=1)
