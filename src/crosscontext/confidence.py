"""How sure a number is: what happened on each image → **confidence** → value, resamples, interval.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile interval.
All statistics of n images are computed on the same resamples, so that their differences are paired.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from crosscontext.shapes import Float, Float32, Float64, Shaped

RESAMPLES = 1000
CONFIDENCE = 0.95
_COUNTS_AT_ONCE = 2**22


@runtime_checkable
class Statistic(Protocol):
    """A number about n images that can be computed again with each image counted several times or never."""

    @property
    def n(self) -> int:
        """Number of images, or of whatever else is drawn."""

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the number R times.

        Args:
            counts: how often each image is counted; in each row they sum to n.
        """


class Mean(NamedTuple):
    """The mean of one value an image, e.g. of whether its answer is right."""

    values: Shaped[Tensor, " N"]
    """Finite."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.values)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Compute the mean R times."""
        return counts @ self.values.double() / self.n


def value_of(statistic: Statistic) -> float:
    """Compute a statistic with each image counted once."""
    return float(statistic(torch.ones(1, statistic.n, dtype=torch.float64)))


def resample(statistic: Statistic, seed: int) -> Float32[np.ndarray, " R"]:
    """Compute a statistic on `RESAMPLES` sets of n images, drawn with replacement.

    Args:
        statistic: of n images.
        seed: of the drawing; with the same n and seed, each statistic sees the same sets.
    """
    replicates = [statistic(counts) for counts in _counts(statistic.n, seed)]
    return torch.cat(replicates).float().numpy()


def interval(replicates: Float[np.ndarray, " R"]) -> tuple[float, float]:
    """Lower and upper end of the percentile interval; a point where all resamples give the same."""
    low, high = np.quantile(replicates.astype(np.float64), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _counts(n: int, seed: int) -> Iterator[Tensor]:
    generator = np.random.default_rng(seed)
    rows = max(1, min(RESAMPLES, _COUNTS_AT_ONCE // n))
    for start in range(0, RESAMPLES, rows):
        drawn = generator.integers(n, size=(min(rows, RESAMPLES - start), n))
        yield torch.from_numpy(np.stack([np.bincount(row, minlength=n) for row in drawn])).double()
