"""A data set whose images are altered on the way, e.g. distorted: itself a data set."""

from collections.abc import Callable

from PIL import Image

from crosscontext.datasets.contract import Dataset


class AlteredDataset(Dataset):
    """Another data set, each image of which is altered after decoding.

    Args:
        dataset: where the images come from.
        alter: receives a picture and the index of its image, from several threads at once.
    """

    def __init__(self, dataset: Dataset, alter: Callable[[Image.Image, int], Image.Image]):
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset, self._alter = dataset, alter

    def image(self, index: int) -> Image.Image:
        """Decode one image and alter it."""
        return self._alter(self._dataset.image(index), index)
