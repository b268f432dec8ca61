"""What a data set is like, judged by a few of its images."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from crosscontext.datasets.contract import Dataset
from crosscontext.errors import ImageError
from crosscontext.randomness import permutation
from crosscontext.shapes import UInt8

_SURVEYED_IMAGES = 64

Property = TypeVar("Property")


def survey(
    dataset: Dataset, judge: Callable[[UInt8[np.ndarray, "H W 3"]], Property]
) -> tuple[list[Property], list[str]]:
    """Judge a few images of a data set, always the same ones, one after the other.

    Args:
        dataset: to choose 64 images from, or all that there are.
        judge: pixels → what is asked for.

    Returns:
        The judgement of each readable image, and for each of the others why it cannot be read.
    """
    judged, causes = [], []
    for index in permutation(0, 0, len(dataset.names))[:_SURVEYED_IMAGES].tolist():
        try:
            judged.append(judge(dataset.pixels(index)))
        except ImageError as error:
            causes.append(str(error))
    return judged, causes
