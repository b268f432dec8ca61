"""A detector learns from images with boxes, and looks at others: detector → **detection** → detections.

Order, sizes and mirroring are functions of (seed, epoch, image), and each test image is looked at alone. So
on a CPU the number of workers changes nothing, and the same seed gives the same weights.
"""

from collections.abc import Iterator
from itertools import count, islice
from typing import Annotated, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from crosscontext.average_precision import Detections
from crosscontext.datasets.contract import BoxDataset, Boxes
from crosscontext.detectors import Detector
from crosscontext.errors import DataError, ImageError, NonFiniteError, SettingsError
from crosscontext.heartbeat import Beat, silent
from crosscontext.optimizers import OptimizerSettings
from crosscontext.prefetching import ahead
from crosscontext.randomness import permutation, uniforms
from crosscontext.schedules import Duration, Plan, warmup_drops
from crosscontext.settings import Settings
from crosscontext.shapes import Float32, Int64, UInt8

_STREAM = 2  # of draws; 0 and 1 are those of views
_TOLERANCE = 1.0  # pixels by which boxes may reach beyond the picture
_SHOWN = 3

_Side = Annotated[int, Field(ge=16)]


class ScheduleSettings(Settings):
    """Sizes of the images and length of the training; made for a few hundred images on a CPU."""

    short_sides: tuple[_Side, ...] = Field((208, 224, 240, 256, 272), min_length=1)
    """Short sides in pixels that training images are resized to, one of them at random; published for VOC:
    480 to 800 in steps of 32."""

    test_short_side: _Side = 240
    """Short side of the test images in pixels; published: 800."""

    long_side: _Side = 400
    """Images whose long side would become longer are made smaller; published: 1333."""

    flip_probability: float = Field(0.5, ge=0, le=1)
    """Share of the training images that are mirrored left to right."""

    learn_difficult: bool = False
    """Learn from difficult boxes, too, as the published protocol does with Pascal VOC, and not with COCO's
    crowds."""

    iterations: int = Field(600, ge=1)
    """Steps of the training; published: 24 000 for VOC 07+12, 90 000 for COCO (1×)."""

    batch_size: int = Field(2, ge=1)
    """Images a step; published: 16."""

    learning_rate: float = Field(0.01, gt=0)
    """Of SGD, for the batch as it is; published: 0.02 for 16 images."""

    warmup: Duration = "10%"
    """Linear rise of the learning rate; published: 100 steps for VOC, 1000 for COCO."""

    milestones: tuple[Duration, ...] = ("75%", "92%")
    """When the learning rate drops to a tenth; published: 18 000 and 22 000 of 24 000 steps."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of SGD."""

    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay, of all but biases and normalisation weights."""


class Found(NamedTuple):
    """What a detector found in the readable images of a data set."""

    indices: list[int]
    """Of the images."""

    detections: list[Detections]
    skipped: dict[str, str]
    """Name of each unreadable image → why."""


class Fitting(NamedTuple):
    """How a training went."""

    last_loss: float
    """Mean over the last tenth of the steps."""

    without_boxes: int
    """Images that nothing could be learned from, since they have no box."""

    skipped: dict[str, str]
    """Name of each unreadable image → why."""


def fit(
    detector: Detector,
    dataset: BoxDataset,
    settings: ScheduleSettings,
    seed: int,
    workers: int,
    beat: Beat = silent,
) -> Fitting:
    """Train a detector in place, on those images that have boxes.

    Args:
        detector: on its device; the global generator is left as it was.
        dataset: of training images.
        settings: see there.
        seed: in [0, 2³²).
        workers: threads that decode; 0 counts as 1.
        beat: is told of each step.

    Raises:
        SettingsError: the batch is larger than the number of images.
        DataError: no image has a box, or none can be read.
        NonFiniteError: the loss became NaN or infinite.
    """
    usable = [i for i in range(len(dataset.names)) if _learned(dataset.boxes(i), settings).any()]
    if not usable:
        raise DataError(
            f"None of the {len(dataset.names)} training images has a box to learn from. Give images with "
            "boxes, or set schedule.learn_difficult if all of them are difficult."
        )
    if settings.batch_size > len(usable):
        raise SettingsError(
            f"A batch of {settings.batch_size} images cannot be made of {len(usable)} training images with "
            f"boxes. Set schedule.batch_size to {len(usable)} or less."
        )
    plan = Plan(len(usable), settings.batch_size, settings.iterations)
    optimizer = OptimizerSettings(
        learning_rate=settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    ).build(detector)
    device = next(detector.parameters()).device
    skipped: dict[str, str] = {}

    def load(key: tuple[int, int]) -> _Example | None:
        epoch, index = key
        try:
            return _example(dataset, index, settings, seed, epoch)
        except ImageError as error:
            skipped[dataset.names[index]] = str(error)
            return None

    losses: list[float] = []
    detector.train()
    with torch.random.fork_rng(devices=[]):
        for step, loaded in enumerate(ahead(load, _batches(plan, usable, seed), workers)):
            examples = [example.to(device) for example in loaded if example is not None]
            if not examples:
                continue
            torch.manual_seed((seed << 32) + step)  # anchors and proposals are drawn
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate_at(step, settings, plan)
            terms = detector([e.image / 255 for e in examples], [e.target for e in examples])
            assert isinstance(terms, dict)
            loss = torch.stack(list(terms.values())).sum()
            if not torch.isfinite(loss):
                named = ", ".join(f"{name} {term.item()}" for name, term in terms.items())
                raise NonFiniteError(
                    f"At step {step} of the detector's training these are not all finite: {named}. "
                    "Lower schedule.learning_rate, or lengthen schedule.warmup."
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            beat(step, plan.total_steps, loss.detach())
    if not losses:
        raise _none_readable(usable, skipped)
    last = losses[-max(1, len(losses) // 10) :]
    return Fitting(float(np.mean(last)), len(dataset.names) - len(usable), dict(sorted(skipped.items())))


def detect(detector: Detector, dataset: BoxDataset, settings: ScheduleSettings, workers: int) -> Found:
    """Look at each readable image once.

    Args:
        detector: is put into evaluation mode.
        dataset: of test images; their boxes serve to notice images of another size than annotated.
        settings: gives the size.
        workers: threads that decode; 0 counts as 1.

    Raises:
        DataError: not a single image can be read.
    """
    device = next(detector.parameters()).device
    skipped: dict[str, str] = {}

    def load(index: int) -> tuple[int, _Picture | None]:
        try:
            return index, _picture(dataset, index, settings.test_short_side, settings.long_side)
        except ImageError as error:
            skipped[dataset.names[index]] = str(error)
            return index, None

    detector.eval()
    found = Found([], [], skipped)
    with torch.no_grad():
        for ((index, picture),) in ahead(load, ([i] for i in range(len(dataset.names))), workers):
            if picture is None:
                continue
            (seen,) = detector([picture.image.to(device) / 255])
            assert isinstance(seen, dict)
            found.indices.append(index)
            found.detections.append(
                Detections(
                    seen["boxes"].cpu().numpy() / picture.scale,
                    seen["labels"].cpu().numpy() - 1,
                    seen["scores"].cpu().numpy(),
                )
            )
    if not found.indices:
        raise _none_readable(range(len(dataset.names)), skipped)
    return found


class _Picture(NamedTuple):
    image: UInt8[Tensor, "3 H W"]
    scale: Float32[np.ndarray, " 4"]
    """By what corners were multiplied."""


class _Example(NamedTuple):
    image: UInt8[Tensor, "3 H W"]
    corners: Float32[Tensor, "M 4"]
    labels: Int64[Tensor, " M"]
    """From 1 on; 0 is the background."""

    def to(self, device: torch.device) -> "_Example":
        return _Example(*(tensor.to(device) for tensor in self))

    @property
    def target(self) -> dict[str, Tensor]:
        return {"boxes": self.corners, "labels": self.labels}


def _example(dataset: BoxDataset, index: int, settings: ScheduleSettings, seed: int, epoch: int) -> _Example:
    """Read an image for one epoch: resized, perhaps mirrored, with its boxes."""
    size, flip = uniforms(seed, epoch, np.array([index]), view=0, count=2, stream=_STREAM)[0]
    short_side = settings.short_sides[int(size * len(settings.short_sides))]
    image, scale = _picture(dataset, index, short_side, settings.long_side)
    boxes = dataset.boxes(index)
    learned = _learned(boxes, settings)
    corners = boxes.corners[learned] * scale
    if flip < settings.flip_probability:
        image = image.flip(2)
        corners[:, [0, 2]] = image.shape[2] - corners[:, [2, 0]]
    return _Example(image, torch.from_numpy(corners), torch.from_numpy(boxes.classes[learned] + 1))


def _picture(dataset: BoxDataset, index: int, short_side: int, long_side: int) -> _Picture:
    from torchvision.transforms.v2.functional import resize

    pixels = dataset.pixels(index)
    height, width = pixels.shape[:2]
    corners = dataset.boxes(index).corners
    if (corners[:, 2:] > np.array([width, height]) + _TOLERANCE).any():
        raise ImageError(
            f"{dataset.names[index]!r} has {width} × {height} pixels, and a box that reaches to "
            f"{corners[:, 2:].max(axis=0).tolist()}. Annotate the image as it is, upright."
        )
    factor = min(short_side / min(height, width), long_side / max(height, width))
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    image = resize(torch.from_numpy(pixels).permute(2, 0, 1), size, antialias=True)
    across, down = size[1] / width, size[0] / height
    return _Picture(image, np.array([across, down, across, down], dtype=np.float32))


def _learned(boxes: Boxes, settings: ScheduleSettings) -> np.ndarray:
    """Which boxes are learned from."""
    return ~boxes.difficult | settings.learn_difficult


def _batches(plan: Plan, usable: list[int], seed: int) -> Iterator[list[tuple[int, int]]]:
    """Epoch and index of each image, step by step; what is left at the end of an epoch is dropped."""

    def endless() -> Iterator[list[tuple[int, int]]]:
        for epoch in count():
            order = permutation(seed, epoch, plan.num_images)[: plan.steps_per_epoch * plan.batch_size]
            for chosen in order.reshape(-1, plan.batch_size):
                yield [(epoch, usable[place]) for place in chosen]

    return islice(endless(), plan.total_steps)


def _learning_rate_at(step: int, settings: ScheduleSettings, plan: Plan) -> float:
    drops = [plan.steps(milestone) for milestone in settings.milestones]
    return settings.learning_rate * warmup_drops(step, warmup_steps=plan.steps(settings.warmup), drops=drops)


def _none_readable(indices: range | list[int], skipped: dict[str, str]) -> DataError:
    causes = "; ".join(list(skipped.values())[:_SHOWN])
    return DataError(f"None of {len(indices)} images can be read: {causes}. Check the data folder.")
