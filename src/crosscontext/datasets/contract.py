"""What a data set offers: named images by index, and labels where they exist.

files → **datasets** → views
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosscontext.shapes import UInt8


class Labels(NamedTuple):
    """One class an image."""

    class_names: tuple[str, ...]
    """In sorted order; the class of an image is an index into it."""

    classes: NDArray[np.int64]
    """Shape (N,), in [0, len(class_names))."""


Reduction = Callable[[int, int], int]
"""Width and height of an image → by how much both may be divided at decoding: 1, 2, 4 or 8."""


class Dataset(ABC):
    """Random access to N images; safe to read from several threads at once."""

    names: Sequence[str]
    """A stable name for each image, e.g. its path below the folder; its length is N."""

    labels: Labels | None
    """None where the images have no labels."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """Decode one image.

        Returns:
            An upright picture in mode RGB.

        Raises:
            ImageError: the image cannot be decoded; the message has its name and the cause.
        """

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Decode one image as an array; where its format allows that, smaller, and so faster.

        Args:
            index: of the image.
            reduction: says how much smaller it may be; by default it is not.

        Returns:
            Red, green and blue; not to be written to.

        Raises:
            ImageError: as of `image`.
        """
        return np.array(self.image(index))  # PyTorch wants arrays that can be written to


class Splits(NamedTuple):
    """The parts of a data set. Pretraining and probes learn from `train` alone."""

    train: Dataset
    test: Dataset | None
    """None where the data set has no test part of its own."""
