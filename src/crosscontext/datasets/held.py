"""Small sets stay in memory once decoded: files → **held** → pixels without decoding."""

import numpy as np
from PIL import Image

from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Dataset, Reduction
from crosscontext.datasets.survey import survey
from crosscontext.shapes import UInt8


class HeldDataset(Dataset):
    """Another data set, of which each image is decoded once, when it is first asked for."""

    def __init__(self, dataset: Dataset):
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset = dataset
        self._held: dict[int, UInt8[np.ndarray, "H W 3"]] = {}

    def fingerprint(self) -> str | None:
        """Identify the images as the other set does."""
        return self._dataset.fingerprint()

    def image(self, index: int) -> Image.Image:
        """Copy one image, decoded now or before."""
        return Image.fromarray(self.pixels(index))

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Look up one image, whole."""
        if (pixels := self._held.get(index)) is None:
            pixels = self._held[index] = self._dataset.pixels(index)
        return pixels


def hold(dataset: Dataset, gigabytes: float) -> Dataset:
    """Hold a data set in memory if that takes at most so much, by the size of a few of its images."""
    if isinstance(dataset, ArrayDataset):
        return dataset
    held = HeldDataset(dataset)  # keeps what is surveyed: these images are asked for again
    sizes, _ = survey(held, lambda pixels: pixels.nbytes)
    fits = sizes and np.mean(sizes) * len(dataset.names) <= gigabytes * 1e9
    return held if fits else dataset
