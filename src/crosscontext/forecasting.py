"""A run on several numbers of processes, before anything is computed: recipe → **forecasting** → verb."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from crosscontext.accelerators import HERE, Machine, find_machine
from crosscontext.datasets import DatasetSettings
from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.errors import SettingsError
from crosscontext.machine import settle_precision
from crosscontext.methods.momentum import MomentumSettings
from crosscontext.planning import PretrainSettings, auto_image_size, budget_in_steps
from crosscontext.scaling import Forecast, forecast, shared_work
from crosscontext.settings import Settings
from crosscontext.traffic import Message, messages
from crosscontext.views import resolve as resolve_views

_IMAGENET, _USUAL_SIZE = 1_281_167, 224
_SLOTS, _WIDTHS = (4096, 16_384, 65_536, 131_072, 262_144), (128, 256, 512, 1024)
_FLOAT = 4  # bytes


class PlanSettings(PretrainSettings):
    """A run, and where it might be made."""

    data: DatasetSettings = ShapesSettings()
    """Training images, of which the number and the size count; where none are named: --num-images."""

    out: Path = Path("runs/plan")
    """Nothing is written."""

    machine: str = "a100"
    """Where: a100, h100, rtx4090, here (its CPU, timed for a minute), or a YAML file of your own figures."""

    processes: Literal["auto"] | tuple[Annotated[int, Field(ge=1)], ...] = "auto"
    """Numbers of processes, one an accelerator. auto: 1 8 64 512, and here 1 2."""

    batch_per_process: int | None = Field(None, ge=1)
    """Images of each process in a step: the batch, and the learning rate in proportion, grow with the
    processes. By default the batch stays, and with it the result, and each process takes its share."""

    num_images: int = Field(_IMAGENET, ge=1)
    """Size of the training set, where no data are named; by default that of ImageNet-1k."""

    image_kilobytes: float = Field(110.0, gt=0)
    """Mean size of an image file; ImageNet-1k: 110."""

    price_per_hour: float | None = Field(None, ge=0)
    """Of one accelerator, in any currency."""


class Traffic(Settings):
    """One kind of message of a step."""

    what: str
    calls: int
    payload_bytes: int
    """That each process hands over."""

    sent_bytes: float
    """That each process has to send at least."""


class PlanReport(Settings):
    """What was found out about a run."""

    run: str
    """The run in a line."""

    precision: str
    machine: Machine
    forecasts: tuple[Forecast, ...]

    traffic_of: int
    """Processes whose messages are listed; 1: there are none."""

    traffic: tuple[Traffic, ...]

    ring_bytes: dict[int, dict[int, int]]
    """Of the memory, by its slots K and the width D of all of its contexts; empty where there is none."""


def plan(settings: PlanSettings, notify: Callable[[str], None] = lambda _: None) -> PlanReport:
    """Forecast a run on several numbers of processes; nothing is trained.

    Args:
        settings: see there.
        notify: is told in one line each what is measured.

    Raises:
        SettingsError: the machine is not known, the length of the run is in minutes, or settings contradict
            each other.
        DataError: the data that are named cannot be read.
    """
    settled, num_images = _settled(settings)
    if settings.machine == HERE:
        from crosscontext.calibration import calibrate

        machine = calibrate(settled, num_images, notify)
    else:
        machine = find_machine(settings.machine)

    def of(count: int) -> Forecast:
        run = _grown(settled, settings.batch_per_process, count)
        return forecast(run, machine, num_images, count, settings.image_kilobytes, settings.price_per_hour)

    counts = settings.processes
    if counts == "auto":
        counts = (1, 2) if settings.machine == HERE else (1, 8, 64, 512)
    first = of(1)
    alone = first.images_per_second
    if alone is None:
        raise SettingsError(f"{first.breaks_first}. Set {first.remedy}.")
    forecasts = [_compared(of(count), alone, machine) for count in counts]
    shared = [each.processes for each in forecasts if each.step_seconds is not None and each.processes > 1]
    traffic_of = shared[0] if shared else 1
    run = _grown(settled, settings.batch_per_process, traffic_of)
    sent = messages(run, shared_work(run, num_images, traffic_of), traffic_of)
    return PlanReport(
        run=_in_a_line(settled, num_images),
        precision=settled.precision,
        machine=machine,
        forecasts=tuple(forecasts),
        traffic_of=traffic_of,
        traffic=tuple(_traffic(message, traffic_of) for message in sent),
        ring_bytes=_rings(settled),
    )


def _settled(settings: PlanSettings) -> tuple[PretrainSettings, int]:
    """Settle what is "auto", for the machine that is asked about; with the number of images."""
    num_images, image_size = settings.num_images, settings.image_size
    if "data" in settings.model_fields_set:
        dataset = settings.data.open().train
        num_images = len(dataset.names)
        image_size = auto_image_size(dataset) if image_size == "auto" else image_size
    image_size = _USUAL_SIZE if image_size == "auto" else image_size
    if settings.minutes is not None:
        raise SettingsError(
            f"The run shall last {settings.minutes:g} minutes, so that there is no time to forecast. Give "
            "--epochs, --steps or --images instead."
        )
    is_here = settings.machine == HERE
    if is_here:
        import torch

        precision = settle_precision(settings.precision, torch.device("cpu"))
    else:
        precision = "bfloat16" if settings.precision == "auto" else settings.precision
    run = settings.alone()
    return run.model_copy(
        update={
            "image_size": image_size,
            "backbone": run.backbone.resolve(run.test_size or image_size),
            "method": run.method.resolve(num_images),
            "views": resolve_views(run.views, image_size),
            "precision": precision,
            "compile": False,
            "winograd": is_here and precision == "float32" and run.winograd is not False,
            **budget_in_steps(run, num_images),
        }
    ), num_images


def _grown(settings: PretrainSettings, batch_per_process: int | None, processes: int) -> PretrainSettings:
    """Let the batch grow with the processes, where that is asked for; the images seen stay as many."""
    if batch_per_process is None:
        return settings
    assert settings.steps is not None
    batch = batch_per_process * processes
    steps = max(round(settings.steps * settings.batch_size / batch), 1)
    return settings.model_copy(update={"batch_size": batch, "steps": steps})


def _compared(found: Forecast, alone: float, machine: Machine) -> Forecast:
    """Add what a process does in comparison with one that is alone."""
    if found.images_per_second is None:
        return found
    fair = alone * found.processes / machine.crowd(found.processes)
    return found.model_copy(update={"scaling_efficiency": found.images_per_second / fair})


def _traffic(message: Message, processes: int) -> Traffic:
    return Traffic(
        what=message.what,
        calls=message.calls,
        payload_bytes=message.payload,
        sent_bytes=message.sent(processes),
    )


def _in_a_line(settings: PretrainSettings, num_images: int) -> str:
    backbone = settings.backbone
    network = f"resnet{backbone.depth}" if backbone.name == "resnet" else backbone.model
    slots = ""
    if isinstance(settings.method, MomentumSettings):
        slots = f", K = {settings.method.memory.slots}"
    return (
        f"{settings.method.name}{slots}, {network}, {settings.image_size} px, {settings.steps} steps of "
        f"{settings.batch_size} of {num_images} images"
    )


def _rings(settings: PretrainSettings) -> dict[int, dict[int, int]]:
    """Bytes of the memory by slots and width."""
    if not isinstance(settings.method, MomentumSettings):
        return {}
    contexts = 2 if settings.method.name == "cgh" else 1
    return {slots: {width: contexts * slots * width * _FLOAT for width in _WIDTHS} for slots in _SLOTS}
