"""Methods on a narrow network, the views of some steps, and the steps themselves."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from crosscontext.backbones import ResNetSettings
from crosscontext.encoders import Preprocessing, encoder_of, save_encoder
from crosscontext.methods import Method, MethodSettings, Outcome, Views
from crosscontext.optimizers import OptimizerSettings
from crosscontext.schedules import Plan

BATCH, SIDE, LOCAL_SIDE = 8, 16, 12
NUM_CLASSES = 3
PLAN = Plan(2560, BATCH, 8000, NUM_CLASSES)  # the warm-up of CGH takes 1600 of the 8000 steps
WARM, LATE = 800, 4000
NARROW = ResNetSettings(depth=10, width=0.125, stem="small")

_FOLDER = TemporaryDirectory()  # removed when the tests are over
TEACHER = Path(_FOLDER.name) / "encoder.safetensors"
with torch.random.fork_rng():
    torch.manual_seed(7)
    wider = ResNetSettings(depth=10, width=0.25, stem="small")
    save_encoder(TEACHER, encoder_of(wider.build(), wider, Preprocessing.for_size(SIDE), step=0))


def built(settings: MethodSettings, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    method: Method = settings.resolve(PLAN.num_images).build(NARROW.build(), PLAN)
    return method.train()


def views_of(method: Method, step: int, dtype: torch.dtype = torch.float32) -> Views:
    """The views of a step: all copies show the same images, with noise of their own."""
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    views: dict[str, list[Tensor]] = {}
    for name, count in method.view_counts.items():
        side = LOCAL_SIDE if name == "local" else SIDE
        noise = [torch.randn(BATCH, 3, side, side, generator=generator) for _ in range(count)]
        views[name] = [(images[..., :side, :side] + 0.1 * each).to(dtype) for each in noise]
    if method.needs_labels:
        views["labels"] = [torch.randint(NUM_CLASSES, (BATCH,), generator=generator)]
    return views


def train(method: Method, start: int, stop: int) -> list[Outcome]:
    optimizer = OptimizerSettings().build(method.student)
    outcomes = []
    for step in range(start, stop):
        outcome: Outcome = method(views_of(method, step), step)
        optimizer.zero_grad()
        outcome.loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.05
        optimizer.step()
        method.after_step(outcome)
        outcomes.append(outcome)
    return outcomes


def losses(outcomes: list[Outcome]) -> list[float]:
    return [outcome.loss.item() for outcome in outcomes]
