"""Image files below a folder, each decoded when it is asked for: names → **files** → pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from crosscontext.datasets import fingerprints
from crosscontext.datasets.contract import Dataset, Labels, Reduction
from crosscontext.datasets.decoding import decode, decode_pixels, read_content
from crosscontext.shapes import UInt8


class ImageFiles(Dataset):
    """What all sets of image files have in common, whatever is known of the images.

    Args:
        root: where the names begin.
        names: of the files, with slashes.
        labels: of the images, where classes are all that is known.
    """

    def __init__(self, root: Path, names: Sequence[str], labels: Labels | None = None) -> None:
        self.root, self.names, self.labels = root, names, labels

    def fingerprint(self) -> str:
        """Identify the files by names, sizes and times of change."""
        return fingerprints.of_files(self.root, self.names)

    def image(self, index: int) -> Image.Image:
        """Decode one file; see `decode` for what becomes of unusual ones."""
        return decode(self.root / self.names[index], self.names[index])

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Decode one file as an array; a JPEG file as small as may be."""
        return decode_pixels(self.root / self.names[index], self.names[index], reduction)

    def content(self, index: int) -> bytes:
        """Read one file."""
        return read_content(self.root / self.names[index], self.names[index])
