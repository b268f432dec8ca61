"""Images a second of the training step alone, and of the whole loop with data, logging and views.

Run: python bench/throughput.py. CGH on ResNet-18 with the small-image stem, 32 px, batch 128, K = 4096; about
two minutes. Step and loop are measured in one process; the median over the steps counts.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from crosscontext.machine import describe_machine
from crosscontext.planning import PretrainSettings
from crosscontext.pretraining import build_method, pretrain
from crosscontext.schedules import Plan
from crosscontext.tracking import read_metrics

STEPS, BATCH, SLOTS = 10, 128, 4096


def settings(out: Path) -> PretrainSettings:
    """The run that is measured."""
    return PretrainSettings.model_validate(
        {
            "data": "shapes",
            "out": out,
            "steps": STEPS,
            "batch_size": BATCH,
            "image_size": 32,
            "backbone": {"name": "resnet", "depth": 18, "stem": "small"},
            "method": {"name": "cgh", "memory": {"slots": SLOTS, "start": "random"}, "momentum": 0.99},
            "log_every": "1 steps",
            "monitor": {"every": "1000 steps", "images": 10},
        }
    )


def step_images_per_second(run: PretrainSettings) -> float:
    """Time forward, backward, optimiser and after_step on tensors that are ready."""
    method = build_method(run, Plan(10_000, BATCH, STEPS), torch.device("cpu"))
    optimizer = run.optimizer.build(method.student)
    image = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    views = {"weak": [image], "strong": [image.flip(3)], "local": []}
    seconds = []
    for step in range(STEPS):
        start = time.perf_counter()
        outcome = method(views, step)
        optimizer.zero_grad()
        outcome.loss.backward()
        optimizer.step()
        method.after_step(outcome)
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds[2:])


def loop_images_per_second(run: PretrainSettings) -> float:
    """Read the speed of a real run from its metrics."""
    lines = read_metrics(pretrain(run).metrics)
    return statistics.median(line["time/images_per_second"] for line in lines[2:-1])


def main() -> None:
    """Print both, with the machine, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        run = settings(Path(folder))
        print(
            json.dumps(
                {
                    "step_images_per_second": round(step_images_per_second(run), 1),
                    "loop_images_per_second": round(loop_images_per_second(run), 1),
                    **describe_machine(torch.device("cpu")),
                },
                indent=1,
            )
        )


if __name__ == "__main__":
    main()
