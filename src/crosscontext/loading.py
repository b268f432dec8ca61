"""Data set + views → batches, by global step: a batch is a function of (seed, step) alone.

views → **batches** → the training loop. Threads decode ahead (the image library releases the interpreter's
lock); how many there are changes nothing but the speed.
"""

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from crosscontext.datasets.contract import Dataset
from crosscontext.errors import DataError, ImageError
from crosscontext.randomness import permutation
from crosscontext.shapes import UInt8
from crosscontext.views import ViewsSettings, cut, geometry_draws, side_of

MAX_UNREADABLE = 0.05
"""Share of the data set; beyond it training stops."""

_BATCHES_AHEAD = 2
_NAMES_SHOWN = 10


class Batch(NamedTuple):
    """The views of one step, cut and resized; their photometry is still to come (`views.finish_views`)."""

    step: int
    epoch: int
    """Keys the draws, with the seed and the indices."""

    indices: Int64[np.ndarray, " B"]
    """Of the images shown: where one was unreadable, of its substitute."""

    crops: dict[str, list[Tensor]]
    """The copies of each named view: uint8 of shape (B, 3, S, S), channels last in memory."""


class Loader:
    """Batches of the views of a data set, in the order of seed and epoch.

    An unreadable image is replaced by the next readable one of the data set, so that batches stay full.

    Args:
        dataset: of the images.
        views_settings: resolved (see `views.resolve`).
        counts: copies of each named view, e.g. ``{"weak": 1, "strong": 1}``.
        image_size: side of the weak and strong views, in pixels.
        batch_size: images a batch; what is left at the end of an epoch is dropped.
        seed: of the run.
        workers: threads that decode; 0 decodes in the thread that asks.

    Raises:
        DataError: the batch is larger than the data set.
    """

    steps_per_epoch: int

    def __init__(
        self,
        dataset: Dataset,
        views_settings: ViewsSettings,
        counts: dict[str, int],
        image_size: int,
        batch_size: int,
        seed: int,
        workers: int,
    ) -> None:
        num_images = len(dataset.names)
        if batch_size > num_images:
            raise DataError(
                f"a batch of {batch_size} images cannot be made of a data set of {num_images}; "
                f"set the batch size to {num_images} or less, or add images."
            )
        self.steps_per_epoch = num_images // batch_size
        self._dataset = dataset
        self._settings = views_settings
        self._views = [(name, copy) for name, number in counts.items() for copy in range(number)]
        self._sides = [side_of(views_settings, name, image_size) for name, _ in self._views]
        self._batch_size = batch_size
        self._seed = seed
        self._workers = workers
        self._order = lru_cache(maxsize=2)(partial(permutation, seed, size=num_images))
        self._skipped: dict[str, str] = {}
        self._lock = threading.Lock()

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
        """
        if self._workers == 0:
            for step in range(start, stop):
                batch = self._empty(step)
                self._fill(batch, range(self._batch_size))
                yield batch
            return
        parts = [part.tolist() for part in np.array_split(np.arange(self._batch_size), self._workers)]
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="crosscontext-loader")
        ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
        try:
            for step in range(start, stop):
                batch = self._empty(step)
                ahead.append((batch, [pool.submit(self._fill, batch, part) for part in parts]))
                if len(ahead) > _BATCHES_AHEAD:
                    yield _when_filled(*ahead.popleft())
            while ahead:
                yield _when_filled(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _empty(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self._batch_size
        crops: dict[str, list[Tensor]] = {}
        for (name, _), side in zip(self._views, self._sides, strict=True):
            pixels = torch.empty((self._batch_size, side, side, 3), dtype=torch.uint8)
            crops.setdefault(name, []).append(pixels.permute(0, 3, 1, 2))
        return Batch(step, epoch, self._order(epoch)[start : start + self._batch_size].copy(), crops)

    def _fill(self, batch: Batch, rows: Sequence[int]) -> None:
        """Make the views of some rows of a batch."""
        if not rows:
            return
        targets = [batch.crops[name][copy].permute(0, 2, 3, 1).numpy() for name, copy in self._views]
        for row, draws in zip(rows, self._draws(batch.epoch, batch.indices[rows]), strict=True):
            batch.indices[row], views = self._cut_views(batch.epoch, int(batch.indices[row]), draws)
            for target, view in zip(targets, views, strict=True):
                target[row] = view

    def _draws(self, epoch: int, images: Int64[np.ndarray, " B"]) -> Float64[np.ndarray, "B views 23"]:
        return np.stack([geometry_draws(self._seed, epoch, images, *view) for view in self._views], axis=1)

    def _cut_views(
        self, epoch: int, index: int, draws: Float64[np.ndarray, "views 23"]
    ) -> tuple[int, list[UInt8[np.ndarray, "_ _ 3"]]]:
        """Decode an image once, or the next one that can be read, and cut all its views."""
        while True:
            name = self._dataset.names[index]
            try:
                image = self._dataset.image(index)
                plan = zip(self._views, self._sides, draws, strict=True)
                return index, [
                    cut(image, of_view, self._settings.named(view[0]), side) for view, side, of_view in plan
                ]
            except ImageError as error:
                self._skip(name, str(error))
            except Exception as error:
                error.add_note(f"This happened with the image {name}.")
                raise
            index = (index + 1) % len(self._dataset.names)
            draws = self._draws(epoch, np.array([index]))[0]

    def _skip(self, name: str, cause: str) -> None:
        with self._lock:
            self._skipped[name] = cause
            num_skipped, num_images = len(self._skipped), len(self._dataset.names)
            if num_skipped > MAX_UNREADABLE * num_images:
                shown = "".join(f"\n  {n}: {c}" for n, c in list(self._skipped.items())[:_NAMES_SHOWN])
                raise DataError(
                    f"{num_skipped} of {num_images} images cannot be read so far, more than "
                    f"{MAX_UNREADABLE:.0%}; mend or remove them:{shown}"
                )


def _when_filled(batch: Batch, parts: list[Future[None]]) -> Batch:
    for part in parts:
        part.result()
    return batch
