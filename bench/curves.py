"""k-NN accuracy against seconds of training: how a curve is measured, kept and read.

a model in training → **curves** → results/time_to_accuracy/<side>.json
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.harness import describe
from crosscontext.datasets import Dataset
from crosscontext.features import FeatureModel, extract
from crosscontext.run_folder import write_atomically
from crosscontext.tasks import KnnSettings

MEASURED_AT = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)  # minutes
NEIGHBOURS, EXTRACTED_AT_ONCE, WORKERS = 200, 500, 2


class Point(NamedTuple):
    """One measurement of a run."""

    seconds: float
    """Of training."""

    images: int
    """Seen so far."""

    top1: float
    """In [0, 1]."""


class Clock:
    """Seconds of training; starts at once.

    Args:
        now: tells the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter):
        self._now, self._start, self._paused = now, now(), 0.0

    def seconds(self) -> float:
        """Time since the start, without pauses."""
        return self._now() - self._start - self._paused

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """What happens within does not count."""
        start = self._now()
        yield
        self._paused += self._now() - start


class Judge:
    """Measures k-NN accuracy on the test images (k = 200, temperature 0.1), and writes the curve.

    Args:
        train: images that vote.
        test: images that ask.
        path: of the JSON file to write.
        conditions: are written beside the curve.
        minutes: of training after which to measure; there is a measurement at the end too.
    """

    def __init__(
        self,
        train: Dataset,
        test: Dataset,
        path: Path,
        conditions: Mapping[str, object],
        minutes: Sequence[float] = MEASURED_AT,
    ):
        self._train, self._test, self._path = train, test, path
        self._content = {"machine": describe(), **conditions}
        self._curve: list[Point] = []
        self._times = [60 * each for each in minutes]

    def is_due(self, seconds: float) -> bool:
        """Whether the next time of measuring has come."""
        return bool(self._times) and seconds >= self._times[0]

    def measure(self, model: FeatureModel, seconds: float, images: int) -> None:
        """Measure a model as it was after so many seconds of training and so many images."""
        train, test = (extract(model, part, EXTRACTED_AT_ONCE, WORKERS) for part in (self._train, self._test))
        task = KnnSettings(k=(min(NEIGHBOURS, len(train.names)),), temperature=0.1)
        (measurement,) = task.measure(train, test, seed=0)
        self._curve.append(Point(seconds, images, measurement.value))
        self._times = [due for due in self._times if due > seconds]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self._content, "curve": [point._asdict() for point in self._curve]}, indent=1)
        write_atomically(self._path, lambda file: file.write(text.encode()))
        top1 = self._curve[-1].top1
        print(f"{self._path.stem}: {seconds:.0f} s, {images} images, k-NN {top1:.2%}", flush=True)


def read_curve(path: Path) -> list[Point]:
    """Read what a side has measured so far; a side that has not run has no points."""
    return [Point(**point) for point in json.loads(path.read_text())["curve"]] if path.exists() else []


def passing_time(curve: Sequence[Point], mark: float) -> float | None:
    """Find the first measurement at or above a mark in per cent; its seconds, or None."""
    return next((point.seconds for point in curve if point.top1 >= mark / 100), None)
