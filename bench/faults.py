"""What safety costs: the share of a run that monitors and checkpoints take, and how soon SIGTERM ends one.

The run is that of the recipe `demo`; the short form has a fifth of its steps, with as many of them between
two checkpoints and two measurements.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TypedDict

from bench.harness import Row, compare, fresh
from crosscontext.errors import EXIT_TERMINATED
from crosscontext.layers import Layer, resolve
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import pretrain
from crosscontext.recipes import find_recipe
from crosscontext.run_folder import RunFolder
from crosscontext.settings import load_yaml
from crosscontext.tracking import Silence, read_metrics

COMMAND = "python -m bench faults"
STEPS, SHORT_STEPS = 1300, 260
MONITOR_EVERY, CHECKPOINT_EVERY = "260 steps", "65 steps"
SECONDS_TO_WAIT = 120.0


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
    costs: Costs = fresh(overhead, steps=SHORT_STEPS if short else STEPS)
    ends = [fresh(seconds_to_end) for _ in range(3 if short else 7)]
    size = f"checkpoint of {costs['checkpoint_megabytes']:.1f} MB"
    return [
        compare(
            "monitors and checkpoints of the demo, share of the run",
            "%",
            100 * costs["paused"],
            None,
            "",
            COMMAND,
            note=f"of {costs['seconds']:.0f} s; {size}",
        ),
        compare(
            "from SIGTERM to the end of the process, checkpoint written",
            "s",
            statistics.median(ends),
            None,
            "",
            COMMAND,
            note=f"at most {max(ends):.2f} s of {len(ends)}; {size}",
        ),
    ]


def overhead(steps: int) -> Costs:
    """Train as the demo does, and count what was not spent on steps."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        settings = _settings(out, steps)
        folder = pretrain(settings, clock)
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


def _settings(out: str, steps: int) -> PretrainSettings:
    recipe = find_recipe("pretrain", "demo")
    of_bench = {
        "report": False,
        "out": out,
        "steps": steps,
        "monitor": {"every": MONITOR_EVERY},
        "checkpoint_every": CHECKPOINT_EVERY,
    }
    return resolve(
        PretrainSettings, [Layer(str(recipe), load_yaml(recipe)), Layer("the benchmark", of_bench)]
    )
