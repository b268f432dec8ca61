"""A budget in minutes → steps, by timing a few of them.

assembly, stepping → **rehearsal** → pretraining, trials
"""

import statistics
import time

import torch

from crosscontext import distributed
from crosscontext.assembly import build_method, make_loader
from crosscontext.datasets.contract import Dataset
from crosscontext.planning import PretrainSettings, plan_of
from crosscontext.schedules import steps_within
from crosscontext.stepping import Stepper
from crosscontext.tracking import Progress

_REHEARSED_STEPS, _UNTIMED_STEPS = 12, 4


def rehearse(
    settings: PretrainSettings, dataset: Dataset, device: torch.device, progress: Progress
) -> PretrainSettings:
    """Turn minutes into steps by timing a few steps, then thrown away."""
    assert settings.minutes is not None
    seconds = distributed.from_first(seconds_per_step(settings, dataset, device))
    steps = steps_within(settings.minutes, seconds)
    progress.say(f"{settings.minutes:g} minutes: {steps} steps of {seconds:.3g} s")
    return settings.model_copy(update={"minutes": None, "steps": steps})


def seconds_per_step(settings: PretrainSettings, dataset: Dataset, device: torch.device) -> float:
    """Time a few steps with views of each size that a run has, and take the mean."""
    rehearsed = settings.model_copy(update={"minutes": None, "steps": _REHEARSED_STEPS, "earlier_sizes": ()})
    sizes = (*settings.earlier_sizes, settings.image_size)
    return statistics.mean(
        _time_steps(rehearsed.model_copy(update={"image_size": size}), dataset, device) for size in sizes
    )


def _time_steps(settings: PretrainSettings, dataset: Dataset, device: torch.device) -> float:
    """Time the steps of a short run, the first ones excepted."""
    assert settings.steps is not None
    plan = plan_of(settings, dataset)
    method = build_method(settings, plan, device)
    stepper = Stepper(settings, plan, method, settings.optimizer.build(method.student))
    moments: list[float] = []
    for step, batch in enumerate(make_loader(settings, dataset, method, device).batches(0, settings.steps)):
        stepper.step(batch.views, step)
        stepper.check()  # waits for the device
        moments.append(time.perf_counter())
    return (moments[-1] - moments[_UNTIMED_STEPS]) / (len(moments) - 1 - _UNTIMED_STEPS)
