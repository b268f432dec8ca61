"""Images that lie encoded in larger files: bytes by index → **encoded** → pictures."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from crosscontext.datasets.contract import Dataset, Labels, Reduction
from crosscontext.datasets.decoding import decode, decode_pixels
from crosscontext.errors import ImageError
from crosscontext.shapes import UInt8


class EncodedImages(Dataset):
    """A data set over whatever hands out the bytes of image files.

    Args:
        names: of the images.
        labels: where they have some.
        read: index → the bytes of an image file, from several threads at once; it may raise anything.
        fingerprint: of names and bytes.
    """

    def __init__(
        self, names: Sequence[str], labels: Labels | None, read: Callable[[int], bytes], fingerprint: str
    ) -> None:
        self.names, self.labels = names, labels
        self._bytes, self._fingerprint = read, fingerprint

    def fingerprint(self) -> str:
        """Identify the images as whoever opened the set could tell."""
        return self._fingerprint

    def image(self, index: int) -> Image.Image:
        """Decode one image; see `decode` for what becomes of unusual ones."""
        return decode(self.content(index), self.names[index])

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Decode one image as an array; a JPEG as small as may be."""
        return decode_pixels(self.content(index), self.names[index], reduction)

    def content(self, index: int) -> bytes:
        """Look up the bytes of one image."""
        try:
            return self._bytes(index)
        except Exception as cause:  # disks, networks and readers of formats raise errors of their own
            raise ImageError(
                f"cannot read {self.names[index]!r}: {cause}. Mend or fetch again the file that holds it."
            ) from cause
