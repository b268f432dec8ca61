"""Training end to end, data included: ResNet-18 with the small-image stem, 32 px, batch 128, K = 4096.

Each tool runs in processes of its own, in turn: once with the memory settings that it has by itself, and once
with the same settings of the C library's allocator for both.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypedDict

from bench.harness import Row, alternate, compare, fresh, require, spread_note
from bench.images import SmallSet, small_images, small_set
from bench.step import BATCH, SIZE, convolution_gigaflops, flops_per_image, network, our_settings
from crosscontext.pretraining import pretrain
from crosscontext.tracking import Silence, read_metrics

COMMAND = "python -m bench loop"
WARMUP_STEPS = 3

KEPT_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:"
    "glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456"
}
"""Freed memory stays with the process, on huge pages, instead of going back to the system in every step."""

Tool = Literal["ours", "lightly"]


class Measured(TypedDict):
    """What one process reports."""

    seconds: float
    """Of a step, on average."""

    data_wait: float
    """Share of them spent waiting for data."""


def measure(short: bool) -> list[Row]:
    """Compare CGH with lightly's MoCo; the short form leaves out the full width, whose data cost little."""
    require("lightly")
    sizes = ((0.25, 8),) if short else ((0.25, 40), (1.0, 8))
    gigaflops = fresh(convolution_gigaflops)
    memories: tuple[tuple[str, Mapping[str, str]], ...] = (("own memory", {}), ("kept memory", KEPT_MEMORY))
    return [
        _row(width, steps, memory, environment, short, gigaflops)
        for width, steps in sizes
        for memory, environment in memories
    ]


def _row(
    width: float, steps: int, memory: str, environment: Mapping[str, str], short: bool, gigaflops: float
) -> Row:
    data: SmallSet = "shapes" if short else small_set()  # shapes are ready sooner
    waits: dict[Tool, list[float]] = {"ours": [], "lightly": []}

    def contender(tool: Tool) -> Callable[[], float]:
        def run() -> float:
            function = our_loop if tool == "ours" else lightly_loop
            measured: Measured = fresh(function, environment, data=data, width=width, steps=steps)
            waits[tool].append(measured["data_wait"])
            return measured["seconds"]

        return run

    timings = alternate(
        {"ours": contender("ours"), "lightly": contender("lightly")}, rounds=2 if short else 5
    )
    waiting = " / ".join(f"{statistics.median(shares):.1%}" for shares in waits.values())
    return compare(
        f"end to end ({data}), {network(width)}, {memory}",
        "images/s",
        BATCH / timings["ours"].seconds,
        BATCH / timings["lightly"].seconds,
        "lightly",
        COMMAND,
        gigaflops * 1e9 / flops_per_image(our_settings("cgh", width)),
        f"{spread_note(*timings.values())}; waiting for data {waiting} of the time",
    )


class StepTimes(Silence):
    """Remembers when each step of a run was done."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def advance(self, step: int, scalars: Mapping[str, float]) -> None:  # noqa: ARG002 (as Progress has it)
        """Note the time."""
        self.moments.append(time.perf_counter())


def our_loop(data: SmallSet, width: float, steps: int) -> Measured:
    """Pretrain with CGH as the command line does, and time the steps after the first three."""
    times = StepTimes()
    with tempfile.TemporaryDirectory() as out:
        settings = our_settings(
            "cgh",
            width,
            data=data,
            out=out,
            steps=WARMUP_STEPS + steps + 1,  # the last one comes with a checkpoint, which is not timed
            log_every="5 steps",
            checkpoint_every="100%",
            monitor={"every": "100%", "images": 10},
            report=False,
        )
        lines = read_metrics(pretrain(settings, times).metrics)
    seconds = (times.moments[WARMUP_STEPS + steps - 1] - times.moments[WARMUP_STEPS - 1]) / steps
    return {"seconds": seconds, "data_wait": statistics.median(line["time/data_wait"] for line in lines[1:])}


def lightly_loop(data: SmallSet, width: float, steps: int) -> Measured:
    """Train as lightly's documentation does, with a worker a core and images that lie in memory."""
    from bench.peers import EXAMPLE, LightlyMoCo, lightly_batches, lightly_step, lightly_views

    model = LightlyMoCo(EXAMPLE, width).train()
    optimizer = model.optimizer()
    dataset = small_images(data, (WARMUP_STEPS + steps) * BATCH)
    batches = lightly_batches(dataset, lightly_views(SIZE, blur=0), BATCH, workers=os.cpu_count() or 1)
    waited = start = 0.0
    for step in range(WARMUP_STEPS + steps):
        if step == WARMUP_STEPS:
            waited, start = 0.0, time.perf_counter()
        asked = time.perf_counter()
        views = next(batches)
        waited += time.perf_counter() - asked
        lightly_step(model, optimizer, views)
    total = time.perf_counter() - start
    return {"seconds": total / steps, "data_wait": waited / total}
