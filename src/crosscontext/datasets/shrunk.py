"""Smaller copies of large images, for whoever looks at each of them several times: itself a data set."""

from PIL import Image

from crosscontext.datasets.contract import Dataset


class ShrunkDataset(Dataset):
    """Another data set, each image of which is made smaller after decoding; small ones stay as they are.

    Args:
        dataset: where the images come from.
        short: the short side that larger images get, in pixels.
    """

    def __init__(self, dataset: Dataset, short: int):
        self.names, self.labels = dataset.names, dataset.labels
        self._dataset, self._short = dataset, short

    def image(self, index: int) -> Image.Image:
        """Decode one image, roughly at the size that is needed where its format allows that; resize it."""
        picture = Image.fromarray(self._dataset.pixels(index, self._reduction))
        if min(picture.size) <= self._short:
            return picture
        scale = self._short / min(picture.size)
        width, height = (max(self._short, round(side * scale)) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.BILINEAR)

    def _reduction(self, width: int, height: int) -> int:
        return max(
            factor for factor in (1, 2, 4, 8) if factor == 1 or min(width, height) >= factor * self._short
        )
