"""How fast a training would be, and what memory it would take: settled settings → a few steps → **speed**."""

import time
from collections.abc import Iterable
from itertools import chain
from typing import Final

import numpy as np
import torch
from torch import Tensor

from crosscontext.assembly import build_method, make_loader
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset
from crosscontext.datasets.held import HeldDataset
from crosscontext.datasets.survey import survey
from crosscontext.errors import DataError, ImageError
from crosscontext.methods import Method, Views
from crosscontext.planning import PretrainSettings, plan_of
from crosscontext.randomness import permutation
from crosscontext.settings import Settings
from crosscontext.stepping import Stepper

_FIRST_BATCH: Final = 4
_STEPS: Final = 8  # timed, if there is time
_PLANNED_STEPS: Final = 1000  # far more than are done, so that the schedule stays at its beginning
_DECODED: Final = 64
_LIBRARIES: Final = 1e9  # bytes of a process that has done a step, beside what is counted here
_BATCHES_AHEAD: Final = 3  # that the loader holds
_TRANSIENT: Final = 1.6  # times the kept maps: what a step needs besides, for a moment


class Speed(Settings):
    """What a short trial of the settings has measured."""

    batch: int
    """Images a step in the trial."""

    step_images_per_second: float
    """Of the networks alone, with all threads."""

    load_images_per_second: float
    """Of one core that decodes and makes views, ahead of the networks."""

    fixed_bytes: int
    """Weights of student and teacher, gradients, momentum of the optimiser, memory slots, and on a CPU the
    images, if they stay in memory."""

    bytes_an_image: int
    """Maps that are kept for the backward pass, and views, for each image of a batch."""

    def images_per_second(self, workers: int, cores: int, on_cpu: bool) -> float:
        """Predict the speed of the whole loop.

        With a GPU, networks and workers go on side by side. On a CPU they share the cores: what the workers
        take, divided by the cores, is lost to the networks.
        """
        step, load = 1 / self.step_images_per_second, 1 / self.load_images_per_second
        return 1 / max(step + (load / cores if on_cpu else 0), load / workers)

    def gigabytes(self, batch: int) -> float:
        """Predict the memory of a training with batches of this size."""
        return (_LIBRARIES + self.fixed_bytes + batch * self.bytes_an_image) / 1e9


def decode_images_per_second(dataset: Dataset) -> float:
    """Decode a few images as a whole on one core; what waits for a disk does not count.

    Raises:
        DataError: none of them can be read.
    """
    seconds, done = 0.0, 0
    for index in permutation(1, 0, len(dataset.names))[:_DECODED].tolist():
        began = time.thread_time()
        try:
            dataset.pixels(index)
        except ImageError:
            continue
        seconds, done = seconds + time.thread_time() - began, done + 1
    if not done:
        raise DataError("None of the sampled images can be read. Mend or replace them.")
    return done / max(seconds, 1e-6)


def measure_speed(
    settings: PretrainSettings, dataset: Dataset, device: torch.device, seconds: float, gigabytes: float
) -> Speed:
    """Try a few steps; the weights are thrown away.

    Batches are as large as time and memory allow, at most those of the settings: on a CPU images a second
    depend little on that, on a GPU there is time for whole batches.

    Args:
        settings: settled.
        dataset: perhaps held in memory; then loading is timed as it is from the second epoch on.
        device: of the training.
        seconds: the trial takes about so long, and at least three steps of four images.
        gigabytes: that the trial may take.

    Raises:
        DataError: more than 5 % of the data set is unreadable.
    """
    end = time.perf_counter() + seconds
    trial = _Trial(settings, dataset, device, min(_FIRST_BATCH, settings.batch_size))
    trial.step(0)
    bytes_an_image = _bytes_an_image(trial)
    load, step = trial.step(2)
    batch = trial.batch
    in_time = (end - time.perf_counter()) / _STEPS / (load + step) * batch
    in_memory = (gigabytes * 1e9 - _LIBRARIES) / bytes_an_image
    while 2 * batch <= min(settings.batch_size, in_time, in_memory):
        batch *= 2
    if batch > trial.batch:
        trial = _Trial(settings, dataset, device, batch)
        trial.step(0)
        timed = [trial.step(1)]
        while len(timed) < _STEPS and time.perf_counter() < end:
            timed.append(trial.step(len(timed) + 1))
        load, step = np.median(timed, axis=0).tolist()
    return Speed(
        batch=batch,
        step_images_per_second=batch / step,
        load_images_per_second=batch / load,
        fixed_bytes=_bytes(_state(trial.method))
        + 2 * _bytes(trial.method.student.parameters())
        + (_bytes_of_images(dataset) if device.type == "cpu" else 0),
        bytes_an_image=bytes_an_image,
    )


class _Trial:
    """A training of a few steps, one after the other: first the batch is made, then the step is done."""

    def __init__(self, settings: PretrainSettings, dataset: Dataset, device: torch.device, batch: int):
        tried = {"batch_size": batch, "accumulate": 1, "compile": False, "workers": 0}
        settings = settings.model_copy(update={**tried, "minutes": None, "steps": _PLANNED_STEPS})
        plan = plan_of(settings, dataset)
        self.batch, self.method = batch, build_method(settings, plan, device)
        self._stepper = Stepper(settings, plan, self.method, settings.optimizer.build(self.method.student))
        self._loader = make_loader(settings, dataset, self.method, device)
        self._is_held = isinstance(dataset, HeldDataset)

    def step(self, number: int) -> tuple[float, float]:
        """Do one step.

        Returns:
            Seconds of loading, and of the step.
        """
        if self._is_held:
            self.views(number)  # decodes what later epochs find decoded
        began = time.perf_counter()
        views = self.views(number)
        loaded = time.perf_counter()
        self._stepper.step(views, number)
        self._stepper.check()  # waits for the device
        return loaded - began, time.perf_counter() - loaded

    def views(self, number: int) -> Views:
        """Make the views of one step."""
        return next(self._loader.batches(number, number + 1)).views


def _bytes_an_image(trial: _Trial) -> int:
    """Count what autograd keeps in step 1 for the backward pass, and the views."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        trial.step(1)
    for value in _state(trial.method):
        kept.pop(value.untyped_storage().data_ptr(), None)
    views = sum(_bytes(copies) for copies in trial.views(1).values())
    return round((_TRANSIENT * sum(kept.values()) + _BATCHES_AHEAD * views) / trial.batch)


def _bytes_of_images(dataset: Dataset) -> int:
    """Estimate what the images take in memory, if they stay there."""
    if not isinstance(dataset, HeldDataset | ArrayDataset):
        return 0
    sizes, _ = survey(dataset, lambda pixels: pixels.nbytes)
    return round(np.mean(sizes) * len(dataset.names))


def _state(method: Method) -> Iterable[Tensor]:
    return chain(method.parameters(), method.buffers())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
