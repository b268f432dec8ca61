"""One training step alone, tensors ready: ResNet-18 with the small-image stem, 32 px, batch 128, K = 4096.

Each contender runs in processes of its own, in turn, with the memory settings that it has by itself. The
limit is counted: floating-point operations of the step, at the speed of one of its convolutions alone.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from bench.harness import Row, alternate, clocked, compare, fresh, require, spread_note
from crosscontext.assembly import build_method
from crosscontext.machine import keep_memory
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.stepping import Stepper

BATCH, SIZE, SLOTS = 128, 32, 4096
COMMAND = "python -m bench step"
NAMES = {"cgh": "CGH", "moco": "MoCo"}

Tool = Literal["cgh", "moco", "lightly"]


def measure(short: bool) -> list[Row]:
    """Compare CGH and MoCo with lightly's MoCo, at full and at a quarter of the width."""
    require("lightly")
    gigaflops = fresh(convolution_gigaflops)
    rows = []
    for width, steps in ((1.0, 2 if short else 6), (0.25, 6 if short else 20)):
        ours: list[Tool] = ["cgh"] if short else ["cgh", "moco"]
        contenders: dict[str, Callable[[], float]] = {
            tool: partial(fresh, seconds_per_step, tool=tool, width=width, steps=steps)
            for tool in (*ours, "lightly")
        }
        timings = alternate(contenders, rounds=2 if short else 5)
        rows += [
            compare(
                f"training step of {NAMES[tool]}, {network(width)}",
                "images/s",
                BATCH / timings[tool].seconds,
                BATCH / timings["lightly"].seconds,
                "lightly",
                COMMAND,
                gigaflops * 1e9 / flops_per_image(our_settings(tool, width)),
                f"{spread_note(timings[tool], timings['lightly'])}; limit at {gigaflops:.0f} GFLOP/s",
            )
            for tool in ours
        ]
    return rows


def network(width: float) -> str:
    """Name the backbone."""
    return "ResNet-18" if width == 1 else f"ResNet-18 × {width:g}"


def our_settings(tool: Tool, width: float, **changes: Any) -> PretrainSettings:
    """The run that is measured; `data` and `out` do not matter to a step."""
    usual: dict[str, Any] = {
        "data": "shapes",
        "out": "runs/bench",
        "steps": 10_000,
        "batch_size": BATCH,
        "image_size": SIZE,
        "backbone": {"name": "resnet", "depth": 18, "stem": "small", "width": width},
        "method": {"name": tool, "memory": {"slots": SLOTS, "start": "random"}, "momentum": 0.99},
        "winograd": True,  # as "auto" is settled on a CPU
    }
    return PretrainSettings.model_validate(usual | changes)


def seconds_per_step(tool: Tool, width: float, steps: int) -> float:
    """Time steps of one tool: the median, after two that do not count."""
    step = _lightly_step(width) if tool == "lightly" else our_step(our_settings(tool, width))
    seconds = []
    for number in range(2 + steps):
        start = time.perf_counter()
        step(number)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def our_step(settings: PretrainSettings) -> Callable[[int], object]:
    """Make a function that does training step number so and so, on views that are ready."""
    assert settings.steps is not None
    assert settings.image_size != "auto"
    keep_memory()  # as `pretrain` does
    plan = Plan(50_000, settings.batch_size, settings.steps)
    method = build_method(settings, plan, torch.device("cpu"))
    optimizer = settings.optimizer.build(method.student)
    images = torch.randn(settings.batch_size, 3, settings.image_size, settings.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    views = {name: [images] * number for name, number in method.view_counts.items()}
    stepper = Stepper(settings, plan, method, optimizer)
    return lambda step: stepper.step(views, step)


def _lightly_step(width: float) -> Callable[[int], object]:
    from bench.peers import EXAMPLE, LightlyMoCo, lightly_step

    model = LightlyMoCo(EXAMPLE, width).train()
    optimizer = model.optimizer()
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    return lambda _: lightly_step(model, optimizer, [images, images])


def flops_per_image(settings: PretrainSettings) -> float:
    """Count the operations of products and convolutions: forward, backward, and the teacher's forward."""
    few = settings.model_copy(update={"batch_size": 4, "winograd": False})
    with FlopCounterMode(display=False) as counter:
        our_step(few)(0)
    return float(counter.get_total_flops()) / few.batch_size


def convolution_gigaflops() -> float:
    """Measure the speed of the most frequent convolution: 3×3, 64 → 64 channels, 32 px, a whole batch."""
    channels = 64
    images = torch.randn(BATCH, channels, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    work = clocked(lambda: F.conv2d(images, weights, padding=1))
    timing = alternate({"convolution": work}, rounds=15, warmup=3)["convolution"]
    return 2 * BATCH * SIZE**2 * channels**2 * 9 / timing.seconds / 1e9
