"""What a run is: its settings, and how what is left open in them is settled before the first step."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from crosscontext.backbones import BackboneSettings, ResNetSettings
from crosscontext.batch_norms import BatchNormSettings, SyncSettings
from crosscontext.collapse import CollapseSettings
from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.survey import survey
from crosscontext.errors import DataError, SettingsError
from crosscontext.loggers import AUTO
from crosscontext.machine import (
    Device,
    Precision,
    choose_device,
    settle_compile,
    settle_precision,
    settle_winograd,
)
from crosscontext.methods import CGHSettings, MethodSettings
from crosscontext.monitor import MonitorSettings
from crosscontext.optimizers import OptimizerSettings
from crosscontext.rollback import NonFinitePolicy
from crosscontext.schedules import Duration, Plan, Timespan
from crosscontext.settings import Settings, leaves
from crosscontext.views import ViewsSettings
from crosscontext.views import resolve as resolve_views

_USUAL_SIZES = (32, 48, 64, 96, 128, 160, 224)
_DEFAULT_EPOCHS = 200.0

SESSION_FIELDS = frozenset(
    {
        *("out", "resume", "overwrite", "extend", "stop_after", "time_limit", "report"),
        *("device", "devices", "timeout_minutes", "accumulate", "threads", "workers", "hold_gigabytes"),
        *("collapse", "on_nonfinite", "rollbacks", "loggers"),
    }
)
"""Fields of a run that concern the machine, the session and its accidents, not the result."""


class PretrainSettings(Settings):
    """A whole run. Of epochs, steps, images and minutes one is given; none means 200 epochs."""

    ONE_OF: ClassVar[tuple[str, ...]] = ("epochs", "steps", "images", "minutes")
    """Ways to say the same: settings that name one of them replace the others."""

    data: DatasetSettings
    """A folder of images, or the name of a data set: shapes, cifar10, cifar100, stl10, …"""

    out: Path
    """Run folder to write."""

    epochs: float | None = Field(None, gt=0)
    """Length of the run in passes over the set."""

    steps: int | None = Field(None, ge=1)
    """Length of the run in steps."""

    images: float | None = Field(None, gt=0)
    """Length of the run in images seen."""

    minutes: float | None = Field(None, gt=0)
    """Length of the run in minutes of training, turned into steps by timing a rehearsal."""

    batch_size: int = Field(256, ge=2)
    """Images in a step, of all processes together."""

    image_size: Literal["auto"] | Annotated[int, Field(ge=8)] = "auto"
    """Side of the views in pixels, at least 8; auto: by the median size of the images, at most 224."""

    earlier_sizes: tuple[Annotated[int, Field(ge=8)], ...] = ()
    """Smaller sides of the views in earlier parts of the run, all parts being of equal length: with [16, 24]
    and an image size of 32 the run has three. A step costs as many times less as there are fewer pixels."""

    test_size: int | None = Field(None, ge=8)
    """Side of the pictures that the encoder is for, in pixels; by default that of the views. Crops show
    things larger than whole pictures do: views a quarter smaller than this suit it, and cost half."""

    seed: int = Field(0, ge=0, lt=2**32)
    """Decides the first weights, the order of the images and all augmentations."""

    backbone: BackboneSettings = ResNetSettings()
    """Network to train: resnet10 … resnet101, or any name of timm."""

    method: MethodSettings = CGHSettings()
    """Objective: cgh, or one of its relatives simcgh, moco, ressl, sce, co2, distill, simclr, byol, simsiam,
    dino, barlow_twins, vicreg; supervised learns from labels, for comparison."""

    views: ViewsSettings = ViewsSettings()
    """Augmentations."""

    optimizer: OptimizerSettings = OptimizerSettings()
    """Optimiser and its schedule."""

    batch_norm: BatchNormSettings = SyncSettings()
    """Which images share the statistics of BatchNorm: all (sync), those of a group (split), or those that a
    process has at once (local)."""

    monitor: MonitorSettings = MonitorSettings()
    """Measurements during training."""

    log_every: Duration = "10 steps"
    """Time between lines of metrics.jsonl."""

    checkpoint_every: Duration = "5%"
    """Time between checkpoints; there is one at the end too."""

    stop_after: Duration | None = None
    """Stop this session after so long, with a checkpoint and exit code 75; --resume goes on."""

    time_limit: Timespan | None = None
    """Stop this session before it has lasted so long, e.g. 2h or 90min, with a checkpoint and exit code 75;
    --resume goes on."""

    collapse: CollapseSettings = CollapseSettings()
    """When the features count as collapsed, which ends the run."""

    on_nonfinite: NonFinitePolicy = "stop"
    """What a loss or gradient that is not a number does: stop, or go back to the last checkpoint and on
    without the step. Its batch is kept in the folder nonfinite either way."""

    rollbacks: int = Field(3, ge=1)
    """Steps that may be skipped so, in the whole run."""

    device: Device = "auto"
    """Where to train; auto: the first GPU, else the CPU. Each of several processes has its own GPU."""

    devices: int = Field(1, ge=1)
    """Processes that train together on this machine, each on a GPU of its own or on its part of the cores;
    they share each batch. torchrun may start them instead, also on several machines."""

    timeout_minutes: float = Field(10.0, gt=0)
    """Time that processes wait for one that does not answer, before they stop and name it."""

    accumulate: int = Field(1, ge=1)
    """Parts in which a process takes its share of a batch, one after the other, to save memory; the weights
    and the memory of embeddings change once a step, as with 1. Networks with BatchNorm need batch_norm split
    without shuffle for that, or local; the statistics for evaluation follow the parts."""

    precision: Precision = "auto"
    """Of the networks; weights, relations and losses stay in float32. auto: bfloat16 where the device is
    made for it (GPUs since Ampere, CPUs with AMX)."""

    compile: Literal["auto"] | bool = "auto"
    """Compile the networks with torch.compile; auto: on GPUs, in runs of at least 2000 steps."""

    winograd: Literal["auto"] | bool = "auto"
    """Compute wide 3×3 convolutions with a quarter of the multiplications (Lavin and Gray, arXiv 1509.09308);
    results differ by rounding, 1e-5 of the largest. auto: on CPUs, in float32, where nothing is compiled."""

    threads: int | None = Field(None, ge=1)
    """CPU threads of the mathematics, of each process; by default all cores, shared by the processes."""

    hold_gigabytes: float = Field(1.0, ge=0)
    """Decoded images stay in memory if the whole set takes at most so much; 0: decode each time."""

    workers: int = Field(2, ge=0)
    """Threads that decode images ahead of training; 0: decode in between."""

    report: bool = True
    """Write report.html, a page that shows the run, when it has ended; takes some ten seconds."""

    loggers: tuple[str, ...] = (AUTO,)
    """Where the numbers of metrics.jsonl go besides: tensorboard, wandb, mlflow, trackio, or what another
    package offers. auto: tensorboard where it is installed; none: nowhere. All of them stay on this machine,
    unless their own variables say otherwise, e.g. WANDB_MODE=online."""

    resume: bool = False
    """Go on from the last checkpoint in the run folder."""

    overwrite: bool = False
    """Replace the run in the run folder."""

    extend: bool = False
    """With resume: another length, learning rate or warm-up is taken, and the new schedule is shown."""

    @model_validator(mode="after")
    def _fit_together(self) -> "PretrainSettings":
        if self.extend and not self.resume:
            raise ValueError("extend changes a run that is there. Give --resume too, or leave it out.")
        return self

    def alone(self) -> "PretrainSettings":
        """Take the settings of the run itself out of those of a verb that adds its own."""
        own = PretrainSettings.model_fields
        return PretrainSettings.model_validate({name: getattr(self, name) for name in own})

    def image_size_at(self, step: int) -> int:
        """Side of the views in one step, in pixels; the settings are settled."""
        assert self.image_size != "auto"
        assert self.steps is not None
        sizes = [*self.earlier_sizes, self.image_size]
        return sizes[min(max(step, 0) * len(sizes) // self.steps, len(sizes) - 1)]


def settle(settings: PretrainSettings, dataset: Dataset, say: Callable[[str], None]) -> PretrainSettings:
    """Settle all that is "auto" by the images, and turn the budget into steps; minutes stay.

    Args:
        settings: as given.
        dataset: the training images.
        say: is told in one line what was settled.

    Raises:
        SettingsError: two budgets, or a batch larger than the set.
        DataError: no image can be read.
    """
    num_images = len(dataset.names)
    if settings.batch_size > num_images:
        raise SettingsError(
            f"batch_size is {settings.batch_size}, but there are only {num_images} training images. "
            f"Set --batch-size to at most {num_images}, or add images."
        )
    image_size = auto_image_size(dataset) if settings.image_size == "auto" else settings.image_size
    device = choose_device(settings.device)
    budget = budget_in_steps(settings, num_images)
    precision = settle_precision(settings.precision, device)
    compiled = settle_compile(settings.compile, device, budget["steps"])
    settled = settings.model_copy(
        update={
            "image_size": image_size,
            "backbone": settings.backbone.resolve(settings.test_size or image_size),
            "method": settings.method.resolve(num_images),
            "views": resolve_views(settings.views, image_size),
            "precision": precision,
            "compile": compiled,
            "winograd": settle_winograd(settings.winograd, device, precision, compiled),
            **budget,
        }
    )
    after = dict(leaves(settled.model_dump(mode="json")))
    autos = [
        f"{key} {after[key]}"
        for key, value in leaves(settings.model_dump(mode="json"))
        if value == "auto" and key in after and after[key] != "auto"
    ]
    if autos:
        say(f"settled for {num_images} images of about {image_size} px: {', '.join(autos)}")
    return settled


def budget_in_steps(settings: PretrainSettings, num_images: int) -> dict[str, float | int | None]:
    """Turn epochs, images or steps into steps; minutes are left as they are.

    Returns:
        New values of the four fields, one of which is not None.

    Raises:
        SettingsError: more than one is given.
    """
    given = [name for name in settings.ONE_OF if getattr(settings, name) is not None]
    if len(given) > 1:
        values = ", ".join(f"{name} {getattr(settings, name)}" for name in given)
        raise SettingsError(f"The length of the run is given {len(given)} times: {values}. Keep one of them.")
    budget: dict[str, float | int | None] = dict.fromkeys(settings.ONE_OF)
    if settings.minutes is not None:
        return budget | {"minutes": settings.minutes}
    steps_per_epoch = num_images // settings.batch_size
    if settings.steps is not None:
        steps = settings.steps
    elif settings.images is not None:
        steps = round(settings.images / settings.batch_size)
    else:
        steps = round((settings.epochs or _DEFAULT_EPOCHS) * steps_per_epoch)
    return budget | {"steps": max(steps, 1)}


def plan_of(settings: PretrainSettings, dataset: Dataset) -> Plan:
    """State the extent of a run whose length in steps is settled, on these training images."""
    assert settings.steps is not None
    num_classes = 0 if dataset.labels is None else len(dataset.labels.class_names)
    return Plan(len(dataset.names), settings.batch_size, settings.steps, num_classes)


def auto_image_size(dataset: Dataset) -> int:
    """Choose the usual size that the median image still fills: its short side, at least 32, at most 224.

    Raises:
        DataError: none of the sampled images can be read.
    """
    sides, causes = survey(dataset, lambda pixels: min(pixels.shape[:2]))
    if not sides:
        raise DataError(f"None of {len(causes)} sampled images can be read, e.g.: {causes[0]}")
    median = statistics.median_low(sides)
    return max([size for size in _USUAL_SIZES if size <= median], default=_USUAL_SIZES[0])
