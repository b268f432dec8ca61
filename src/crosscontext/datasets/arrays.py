"""Images that lie in memory: pixels (N, H, W[, 3]) → **arrays** → PIL images."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from crosscontext.datasets import fingerprints
from crosscontext.datasets.contract import Dataset, Labels, Reduction
from crosscontext.shapes import UInt8


class ArrayDataset(Dataset):
    """A data set over an array of grey or RGB pixels, which is kept, not copied."""

    def __init__(
        self,
        pixels: UInt8[np.ndarray, "N H W 3"] | UInt8[np.ndarray, "N H W"],
        names: Sequence[str],
        labels: Labels | None,
    ) -> None:
        self._pixels = pixels
        self.names = names
        self.labels = labels

    def fingerprint(self) -> str:
        """Identify the images by their bytes."""
        return fingerprints.of_pixels(self._pixels, self.names)

    def image(self, index: int) -> Image.Image:
        """Copy one image out of the array, as RGB."""
        return Image.fromarray(self._pixels[index]).convert("RGB")

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Look up one image; grey ones are copied into three channels."""
        pixels = self._pixels[index]
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
