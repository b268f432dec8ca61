"""How long a step takes on so many processes, and what breaks first.

workload, machine → **scaling** → forecasting. A step is the roofline of its kernels, what it waits for other
processes, and data where they are slower.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydantic import Field

from crosscontext.accelerators import Machine
from crosscontext.batch_norms import SplitSettings, SyncSettings
from crosscontext.planning import PretrainSettings
from crosscontext.schedules import Plan
from crosscontext.settings import Settings
from crosscontext.traffic import Message, messages
from crosscontext.workload import Workload, workload_of

GIGA = 1e9
ADVISED_SHARE = 32
"""Images of a process that keep an accelerator busy, where the batch may grow."""

_LAST_BUCKET = 25 * 2**20  # bytes; DDP's largest, which no backward pass is left to hide
_WORKSPACE = 1.1  # of the memory that is counted, for what libraries and fragments take; assumed
_WORTH_SAYING = 0.1  # of a step
_MANY_STEPS = 10**9  # of which the middle one is after any warm-up


class Forecast(Settings):
    """Of one number of processes; where they cannot share the batch, all that follows from it is left out."""

    processes: int
    machines: int
    batch_size: int

    step_seconds: float | None = None
    compute_seconds: float | None = None
    """Of a step, by the roofline."""

    waiting_seconds: float | None = None
    """Of a step, for other processes."""

    images_per_second: float | None = None
    scaling_efficiency: float | None = None
    """Images a second, over those of one process alone and the number of processes."""

    sent_bytes: float | None = None
    """By each process in a step."""

    memory_bytes: dict[str, float] = Field(default_factory=dict)
    """Of an accelerator, by what takes it."""

    read_bytes_per_second: float | None = None
    cores_to_decode: float | None = None
    """In each machine."""

    checkpoint_bytes: float | None = None
    checkpoint_seconds: float | None = None
    hours: float | None = None
    cost: float | None = None

    breaks_first: str
    remedy: str


class Loss(NamedTuple):
    """What takes a part of a step, and what to do about it."""

    part: float
    what: str
    remedy: str


class Times(NamedTuple):
    """Seconds of one step."""

    compute: float
    """Kernels of all parts, and those of the update."""

    launching: float
    """By which the CPU is slower than they are."""

    gradients: float
    """Of sending them, as far as backward does not hide it."""

    norms: float
    """Of waiting for the statistics of BatchNorm."""

    others: float
    """Of all other messages that are waited for."""

    data: float
    """Of decoding, which goes on beside all that."""

    @property
    def waiting(self) -> float:
        """For other processes."""
        return self.gradients + self.norms + self.others

    @property
    def step(self) -> float:
        """All together."""
        return max(self.compute + self.launching + self.waiting, self.data)


def forecast(
    settings: PretrainSettings,
    machine: Machine,
    num_images: int,
    processes: int,
    image_kilobytes: float = 110.0,
    price_per_hour: float | None = None,
) -> Forecast:
    """Forecast a run on so many processes; its scaling efficiency is left open.

    Args:
        settings: settled, with the batch of all processes.
        machine: that each process has a part of.
        num_images: of the training set.
        processes: that train together.
        image_kilobytes: mean size of an image file.
        price_per_hour: of one accelerator.
    """
    machines = math.ceil(processes / machine.processes_per_machine)
    unfit = _unfit(settings, processes)
    if unfit is not None:
        return Forecast(
            processes=processes,
            machines=machines,
            batch_size=settings.batch_size,
            breaks_first=unfit.what,
            remedy=unfit.remedy,
        )
    assert settings.steps is not None
    work = shared_work(settings, num_images, processes)
    sent = messages(settings, work, processes)
    times = times_of(settings, machine, work, sent, processes)
    memory = memory_of(work)
    rate = settings.batch_size / times.step
    hours = settings.steps * times.step / 3600
    worst = max(losses(settings, machine, work, times, processes), key=lambda loss: loss.part)
    if worst.part < _WORTH_SAYING:
        worst = Loss(0, f"nothing: kernels are {times.compute / times.step:.0%} of a step", "")
    return Forecast(
        processes=processes,
        machines=machines,
        batch_size=settings.batch_size,
        step_seconds=times.step,
        compute_seconds=times.compute,
        waiting_seconds=times.waiting,
        images_per_second=rate,
        sent_bytes=sum(message.sent(processes) for message in sent),
        memory_bytes=memory,
        read_bytes_per_second=rate * image_kilobytes * 1e3,
        cores_to_decode=rate / machines / machine.decoded_images_per_second,
        checkpoint_bytes=work.checkpoint_bytes,
        checkpoint_seconds=work.checkpoint_bytes / (machine.disk_gigabytes_per_second * GIGA),
        hours=hours,
        cost=None if price_per_hour is None else hours * processes * price_per_hour,
        breaks_first=worst.what,
        remedy=worst.remedy,
    )


def times_of(
    settings: PretrainSettings, machine: Machine, work: Workload, sent: Sequence[Message], processes: int
) -> Times:
    """Put the seconds of a step together."""
    crowd = machine.crowd(processes)
    once = machine.seconds((*work.forward, *work.backward), settings.precision)
    compute = crowd * (work.parts * once + machine.seconds(work.update, settings.precision))
    launching = max(work.parts * (machine.launching((*work.forward, *work.backward)) - once), 0.0)
    seconds = {message.what: machine.sending(message, processes) for message in sent}
    gradients = seconds.get("gradients", 0.0)
    if (
        machine.processes_without_sharing is None
    ):  # else sending takes the time of the kernels that would hide it
        backward = machine.seconds(work.backward, settings.precision)
        gradients = max(gradients - backward, gradients * min(_LAST_BUCKET / work.gradient_bytes, 1.0))
    waits = {message.what for message in sent if message.waits}
    norms = sum(seconds[what] for what in waits if what.startswith("BatchNorm"))
    inside = min(processes, machine.processes_per_machine)
    decoded = settings.batch_size * inside / processes / machine.decoded_images_per_second
    return Times(
        compute=compute,
        launching=launching,
        gradients=gradients,
        norms=norms,
        others=sum(seconds[what] for what in waits) - norms,
        data=decoded / machine.cores,
    )


def losses(
    settings: PretrainSettings, machine: Machine, work: Workload, times: Times, processes: int
) -> list[Loss]:
    """What keeps a run from the speed of its kernels, with a remedy each."""
    needed, there = sum(memory_of(work).values()), machine.memory_gigabytes * GIGA
    share = settings.batch_size // processes
    fewer = "fewer processes, or a larger batch (--batch-per-process here), which is another recipe"
    return [
        Loss(
            math.inf if needed > there else 0.0,
            f"memory: {needed / GIGA:.0f} of {machine.memory_gigabytes:.0f} GB",
            "more processes, --method.memory.slots, or --accumulate with --batch-norm split, not shuffled",
        ),
        Loss(
            1 - (times.compute + times.launching + times.waiting) / times.step,
            f"data: the {machine.cores} cores of a machine decode too slowly",
            "smaller files (shorter side 256 px), or machines with more cores",
        ),
        Loss(
            times.norms / times.step,
            f"BatchNorm: {times.norms * 1e3:.1f} ms of {times.step * 1e3:.1f} wait for statistics",
            f"--batch-norm split --batch-norm.groups {processes}" if share > 1 else fewer,
        ),
        Loss(
            times.launching / times.step,
            f"kernels: {share} images a process are computed sooner than the kernels are started",
            fewer,
        ),
        Loss(
            times.gradients / times.step,
            f"gradients: {times.gradients * 1e3:.1f} ms of {times.step * 1e3:.1f} beyond the backward pass",
            fewer,
        ),
        Loss(times.others / times.step, "messages: waiting for keys and shuffled images", fewer),
    ]


def _unfit(settings: PretrainSettings, processes: int) -> Loss | None:
    """Say why so many processes cannot make the run at all; None where they can."""
    parts, batch_norm = processes * settings.accumulate, settings.batch_norm
    if settings.batch_size % parts:
        return Loss(
            math.inf,
            f"batch: {settings.batch_size} images cannot be shared equally by {parts}",
            f"--batch-size {ADVISED_SHARE * parts}, which is another recipe",
        )
    if isinstance(batch_norm, SplitSettings) and batch_norm.groups % parts:
        return Loss(
            math.inf,
            f"BatchNorm: {batch_norm.groups} groups cannot be shared equally by {parts}",
            f"--batch-norm.groups {parts}",
        )
    if isinstance(batch_norm, SyncSettings) and settings.accumulate > 1:
        return Loss(
            math.inf,
            "BatchNorm: statistics of the whole batch, of which accumulate shows a part at once",
            f"--batch-norm split --batch-norm.groups {parts} --batch-norm.no-shuffle",
        )
    return None


def memory_of(work: Workload) -> dict[str, float]:
    """Bytes of an accelerator, by what takes them; the last is assumed to be a tenth of all others."""
    counted = {
        "weights": work.state_bytes - work.memory_bytes,
        "memory ring": work.memory_bytes,
        "gradients": work.gradient_bytes,
        "optimiser": work.optimizer_bytes,
        "activations": work.held_bytes,
    }
    taken = {what: float(taking) for what, taking in counted.items()}
    return {**taken, "workspace": (_WORKSPACE - 1) * sum(taken.values())}


def shared_work(settings: PretrainSettings, num_images: int, processes: int) -> Workload:
    """Find out what each of so many processes computes; what was found out is kept.

    Args:
        settings: settled, with the batch of all processes.
        num_images: of the training set.
        processes: that share the batch.
    """
    without = {"batch_size", "batch_norm", *PretrainSettings.ONE_OF}  # of no account to one share
    return _kept(settings.model_dump_json(exclude=without), num_images, settings.batch_size // processes)


@lru_cache(maxsize=64)
def _kept(dumped: str, num_images: int, share: int) -> Workload:
    settings = PretrainSettings.model_validate_json(dumped)
    return workload_of(settings, Plan(num_images, share, _MANY_STEPS, num_classes=1000), share)
