"""What safety costs: the share of a run that monitors and checkpoints take, and how soon SIGTERM ends one.

A share is measured on a run as long as a part of a recipe, which monitors and saves as often for its length.
The short form takes a fiftieth of the recipe `cifar10`, measures once on a fifth of the images, and saves
more often.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from bench.harness import Row, compare, fresh
from bench.images import small_set
from crosscontext.errors import EXIT_TERMINATED
from crosscontext.layers import Layer, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.recipes import find_recipe
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml
from crosscontext.tracking import Silence, read_metrics

COMMAND = "python -m bench faults"
SECONDS_TO_WAIT = 120.0


class Part(NamedTuple):
    """Of a recipe."""

    recipe: str
    steps: int
    """Of this part; it measures once, after the last one."""

    checkpoint_every: int
    """Steps."""

    images: int
    """That it is measured on."""

    note: str


SHORT = Part("cifar10", 100, 100, 1000, "ResNet-10 × 0.25, 10 measurements on 5000 images in 5000 steps")
FULL = (
    SHORT._replace(steps=500, checkpoint_every=250, images=5000),
    Part("demo", 260, 65, 3000, "ResNet-10 × 0.125, 5 measurements on 3000 images in 1300 steps"),
)


class Costs(TypedDict):
    """What one process reports."""

    seconds: float
    """From the first step to the end."""

    paused: float
    """Share of them that was not spent on steps."""

    checkpoint_megabytes: float


class Clock(Silence):
    """Remembers when training began."""

    began = 0.0

    def start(self, total_steps: int, step: int) -> None:  # noqa: ARG002 (as Progress has it)
        """Note the time."""
        self.began = time.perf_counter()


def measure(short: bool) -> list[Row]:
    """Measure both; neither has a peer."""
    parts = (SHORT,) if short else FULL
    costs: list[Costs] = [fresh(overhead, part=part) for part in parts]
    ends = [fresh(seconds_to_end) for _ in range(1 if short else 7)]
    return [
        *(
            compare(
                f"monitors and checkpoints of `crosscontext pretrain {part.recipe}`, share of the run",
                "%",
                100 * cost["paused"],
                None,
                "",
                COMMAND,
                note=f"{part.note}; checkpoint of {cost['checkpoint_megabytes']:.1f} MB",
            )
            for part, cost in zip(parts, costs, strict=True)
        ),
        compare(
            "from SIGTERM to the end of the process, checkpoint written",
            "s",
            statistics.median(ends),
            None,
            "",
            COMMAND,
            note=f"of the demo; at most {max(ends):.2f} s of {len(ends)}",
        ),
    ]


def overhead(part: Sequence[Any]) -> Costs:
    """Train a part of a recipe, given as JSON has it, and count what was not spent on steps."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        folder = pretrain(_settings(out, Part(*part)), clock)
        seconds = time.perf_counter() - clock.began
        lines = read_metrics(folder.metrics)
        size = folder.checkpoint.stat().st_size / 1e6
    images = [0, *(line["images"] for line in lines)]
    worked = sum(
        (line["images"] - before) / line["time/images_per_second"]
        for before, line in zip(images, lines, strict=False)
    )
    return {"seconds": seconds, "paused": 1 - worked / seconds, "checkpoint_megabytes": size}


def seconds_to_end() -> float:
    """Ask a run to end in the middle of its steps."""
    with tempfile.TemporaryDirectory() as out:
        folder = RunFolder(Path(out) / "run")
        command = [sys.executable, "-m", "crosscontext", "pretrain", "demo", "--out", str(folder.path)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + SECONDS_TO_WAIT
        while len(read_metrics(folder.metrics)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        asked = time.perf_counter()
        process.terminate()
        code = process.wait()
        seconds = time.perf_counter() - asked
    if code != EXIT_TERMINATED:
        raise RuntimeError(f"The run ended with code {code}, not by SIGTERM with a checkpoint.")
    return seconds


def _settings(out: str, part: Part) -> PretrainSettings:
    recipe = find_recipe("pretrain", part.recipe)
    of_bench = {
        "data": small_set() if part.recipe == "cifar10" else "shapes",
        "report": False,
        "out": out,
        "steps": part.steps,
        "monitor": {"every": "100%", "images": part.images},
        "checkpoint_every": f"{part.checkpoint_every} steps",
    }
    return resolve(
        PretrainSettings, [Layer(str(recipe), load_yaml(recipe)), Layer("the benchmark", of_bench)]
    )
