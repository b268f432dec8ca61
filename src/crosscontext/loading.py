"""Data set + views → batches, by global step: a batch is a function of (seed, step) alone.

views → **batches** → the training loop. Threads work ahead (the libraries release the interpreter's
lock), each on a few images at a time; how many threads there are changes nothing but the speed.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from copy import copy as copied
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from crosscontext.datasets.contract import Dataset
from crosscontext.errors import DataError, ImageError, ShortOfMemoryError
from crosscontext.machine import start_threads
from crosscontext.randomness import permutation
from crosscontext.resampling import SMALL, empty_crops
from crosscontext.shapes import UInt8
from crosscontext.views import (
    ViewsSettings,
    crop_boxes,
    cut,
    empty_views,
    finish_views,
    geometry_draws,
    side_of,
)

MAX_UNREADABLE = 0.05
"""Share of the data set; beyond it training stops."""

_BATCHES_AHEAD = 2
_VALUES_AT_ONCE = 2**21  # of the views of the images that a thread works on: some megabytes as numbers
_NAMES_SHOWN = 10


class Batch(NamedTuple):
    """The views of one step."""

    step: int
    epoch: int
    """Keys the draws, with the seed and the indices."""

    indices: Int64[np.ndarray, " B"]
    """Of the images shown: where one was unreadable, of its substitute."""

    crops: dict[str, list[Tensor]]
    """The copies of each named view, cut and resized: uint8 of shape (B, 3, S, S)."""

    views: dict[str, list[Tensor]]
    """The same after photometry, on the device of the loader; empty where it has none. With labels, the
    classes of the images shown are one entry more, ``labels``: int64 of shape (B,)."""


class Loader:
    """Batches of the views of a data set, in the order of seed and epoch.

    An unreadable image is replaced by the next readable one of the data set, so that batches stay full.

    Args:
        dataset: of the images.
        views_settings: resolved (see `views.resolve`).
        counts: copies of each named view, e.g. ``{"weak": 1, "strong": 1}``.
        image_size: side of the weak and strong views, in pixels, or a function that gives it for a step.
        batch_size: images a batch; what is left at the end of an epoch is dropped.
        seed: of the run.
        workers: threads that make batches ahead; 0: the thread that asks makes them.
        device: of the views. On a CPU the workers do the photometry, else the device does. By default
            there is none, and batches hold crops only.
        with_labels: whether the views have the classes of their images; the data set has labels.
        share: rows of each batch that are made; by default all.

    Raises:
        DataError: the batch is larger than the data set.
    """

    def __init__(
        self,
        dataset: Dataset,
        views_settings: ViewsSettings,
        counts: dict[str, int],
        image_size: int | Callable[[int], int],
        batch_size: int,
        seed: int,
        workers: int,
        device: torch.device | None = None,
        with_labels: bool = False,
        share: slice = slice(None),
    ) -> None:
        num_images = len(dataset.names)
        if batch_size > num_images:
            raise DataError(
                f"a batch of {batch_size} images cannot be made of a data set of {num_images}; "
                f"set the batch size to {num_images} or less, or add images."
            )
        self.steps_per_epoch = num_images // batch_size
        self.dataset = dataset
        self._settings = views_settings
        self._views = [(name, copy) for name, number in counts.items() for copy in range(number)]
        self._image_size_at = image_size if callable(image_size) else lambda _: image_size
        self._batch_size = batch_size
        self._share = share
        self._seed = seed
        self._workers = workers
        self._device = device
        self._labels = dataset.labels if with_labels else None
        self._order = lru_cache(maxsize=2)(partial(permutation, seed, size=num_images))
        self._skipped: dict[str, str] = {}
        self._lock = threading.Lock()

    def whole(self) -> "Loader":
        """The same, of whole batches instead of a share of them."""
        loader = copied(self)
        loader._share = slice(None)
        return loader

    @property
    def skipped(self) -> dict[str, str]:
        """Name and cause of each unreadable image met so far."""
        with self._lock:
            return dict(self._skipped)

    def batches(self, start: int, stop: int) -> Generator[Batch, None, None]:
        """Make the batches of the global steps start … stop − 1.

        Args:
            start: may be negative: the steps before 0 belong to the epochs −1, −2, …
            stop: the first step that is not made.

        Yields:
            One batch a step. Leaving early (or `close`) stops the threads.

        Raises:
            DataError: more than 5 % of the data set is unreadable.
            ShortOfMemoryError: there is no memory for an image or its views.
        """
        if self._workers == 0:
            for step in range(start, stop):
                batch = self._empty(step)
                for part in self._parts(batch):
                    self._fill(batch, part)
                yield self._complete(batch)
            return
        pool = start_threads(self._workers, "crosscontext-loader")
        ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for step in range(start, stop + _BATCHES_AHEAD):
                if step < stop:
                    batch = self._empty(step)
                    futures = [pool.submit(self._fill, batch, part) for part in self._parts(batch)]
                    ahead.append((batch, futures))
                if step >= start + _BATCHES_AHEAD:
                    batch, futures = ahead.popleft()
                    for future in futures:
                        future.result()
                    yield self._complete(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _empty(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self._batch_size
        indices = self._order(epoch)[start : start + self._batch_size][self._share].copy()
        crops: dict[str, list[Tensor]] = {}
        for name, _ in self._views:
            side = side_of(self._settings, name, self._image_size_at(step))
            crops.setdefault(name, []).append(torch.from_numpy(empty_crops(len(indices), side)))
        on_cpu = self._device is not None and self._device.type == "cpu"
        views = {name: [empty_views(copy) for copy in copies] for name, copies in crops.items() if on_cpu}
        return Batch(step, epoch, indices, crops, views)

    def _parts(self, batch: Batch) -> list[slice]:
        """Divide a batch, in the same way for any number of workers."""
        values_an_image = sum(copy[0].numel() for copies in batch.crops.values() for copy in copies)
        images = max(1, _VALUES_AT_ONCE // values_an_image)
        return [slice(row, row + images) for row in range(0, len(batch.indices), images)]

    def _fill(self, batch: Batch, part: slice) -> None:
        """Make the crops of a part of a batch, on a CPU the views, too."""
        try:
            self._read_and_cut(batch, range(len(batch.indices))[part])
            if batch.views:
                crops, views = _rows(batch.crops, part), _rows(batch.views, part)
                finish_views(crops, batch.indices[part], self._settings, self._seed, batch.epoch, views)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # PyTorch's own words
                raise
            told = " ".join([f"{str(error) or 'out of memory'}.", *getattr(error, "__notes__", ())])
            raise ShortOfMemoryError(
                f"No memory was left to prepare the images of step {batch.step}: {told} Use fewer --workers "
                f"(there are {self._workers}) and go on with --resume, or begin again with a smaller "
                "--hold-gigabytes."
            ) from error

    def _complete(self, batch: Batch) -> Batch:
        """Add what needs the whole batch: the views on a device that is not the CPU, and labels."""
        views = batch.views
        if self._device is not None and not views:
            crops = {
                name: [copy.to(self._device, non_blocking=True) for copy in copies]
                for name, copies in batch.crops.items()
            }
            views = finish_views(crops, batch.indices, self._settings, self._seed, batch.epoch)
        if self._labels is not None:
            classes = torch.from_numpy(self._labels.classes[batch.indices])
            views = {**views, "labels": [classes.to(self._device)]}
        return batch._replace(views=views)

    def _read_and_cut(self, batch: Batch, rows: Sequence[int]) -> None:
        """Make the crops of some rows of a batch: large pictures one by one, small ones all together."""
        draws = self._draws(batch.epoch, batch.indices[rows])
        small: list[UInt8[np.ndarray, "_ _ 3"]] = []
        small_places: list[int] = []
        for place, row in enumerate(rows):
            picture = self._read(batch, row, draws[place])
            if max(picture.shape[:2]) <= SMALL:
                small.append(picture)
                small_places.append(place)
            else:
                self._cut([picture], batch, [row], draws[place : place + 1])
        if small:
            self._cut(small, batch, [rows[place] for place in small_places], draws[small_places])

    def _cut(
        self,
        pictures: list[UInt8[np.ndarray, "_ _ 3"]],
        batch: Batch,
        rows: list[int],
        draws: Float64[np.ndarray, "B views 23"],
    ) -> None:
        for number, (name, copy) in enumerate(self._views):
            target = batch.crops[name][copy]
            target.numpy()[rows] = cut(
                pictures, draws[:, number], self._settings.named(name), target.shape[-1]
            )

    def _draws(self, epoch: int, images: Int64[np.ndarray, " B"]) -> Float64[np.ndarray, "B views 23"]:
        return np.stack([geometry_draws(self._seed, epoch, images, *view) for view in self._views], axis=1)

    def _read(
        self, batch: Batch, row: int, draws: Float64[np.ndarray, "views 23"]
    ) -> UInt8[np.ndarray, "_ _ 3"]:
        """Decode the image of a row, or the next one that can be read, with its own index and draws."""
        while True:
            index = int(batch.indices[row])
            name = self.dataset.names[index]
            try:
                return self.dataset.pixels(index, partial(self._reduction, batch.crops, draws))
            except ImageError as error:
                self.skip({name: str(error)})
            except Exception as error:
                error.add_note(f"This happened with the image {name}.")
                raise
            batch.indices[row] = (index + 1) % len(self.dataset.names)
            draws[:] = self._draws(batch.epoch, batch.indices[row : row + 1])[0]

    def _reduction(
        self, crops: dict[str, list[Tensor]], draws: Float64[np.ndarray, "views 23"], width: int, height: int
    ) -> int:
        """By how much an image may be smaller, so that no crop of it has to be enlarged for that."""
        sides = [crops[name][copy].shape[-1] for name, copy in self._views]
        if min(width, height) < 2 * min(sides):
            return 1
        size = np.array([[width, height]])
        rooms = [
            crop_boxes(draws[number : number + 1], size, self._settings.named(name))[0, 2:].min() / side
            for number, ((name, _), side) in enumerate(zip(self._views, sides, strict=True))
        ]
        return max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor <= min(rooms))

    def skip(self, found: Mapping[str, str]) -> None:
        """Count unreadable images, also those that other processes have met.

        Args:
            found: name → cause.

        Raises:
            DataError: all that were met are more than 5 % of the data set.
        """
        with self._lock:
            self._skipped |= found
            num_skipped, num_images = len(self._skipped), len(self.dataset.names)
            if num_skipped > MAX_UNREADABLE * num_images:
                shown = "".join(f"\n  {n}: {c}" for n, c in list(self._skipped.items())[:_NAMES_SHOWN])
                raise DataError(
                    f"{num_skipped} of {num_images} images cannot be read so far, more than "
                    f"{MAX_UNREADABLE:.0%}; mend or remove them:{shown}"
                )


def _rows(copies: dict[str, list[Tensor]], part: slice) -> dict[str, list[Tensor]]:
    return {name: [copy[part] for copy in of_name] for name, of_name in copies.items()}
