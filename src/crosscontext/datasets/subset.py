"""A part of a data set, itself a data set."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from crosscontext.datasets import fingerprints
from crosscontext.datasets.contract import BoxDataset, Boxes, Dataset, Labels, MaskDataset, Reduction
from crosscontext.shapes import UInt8


class Subset(Dataset):
    """Some images of another data set, in the order given.

    Args:
        whole: where the images come from.
        indices: of the images to keep.
    """

    def __init__(self, whole: Dataset, indices: Sequence[int]):
        self._whole, self._indices = whole, list(indices)
        self.names = [whole.names[i] for i in self._indices]
        labels = whole.labels
        self.labels = labels and Labels(labels.class_names, labels.classes[self._indices])

    def fingerprint(self) -> str | None:
        """Identify the part by the whole and the indices."""
        return fingerprints.of_part(self._whole.fingerprint(), self._indices)

    def image(self, index: int) -> Image.Image:
        """Decode one image of the part."""
        return self._whole.image(self._indices[index])

    def pixels(self, index: int, reduction: Reduction | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """Decode one image of the part as an array."""
        return self._whole.pixels(self._indices[index], reduction)

    def content(self, index: int) -> bytes | None:
        """Read one image file of the part."""
        return self._whole.content(self._indices[index])


class BoxSubset(Subset, BoxDataset):
    """Some images of a data set with boxes."""

    def __init__(self, whole: BoxDataset, indices: Sequence[int]):
        super().__init__(whole, indices)
        self._boxed = whole
        self.left_out = {name: whole.left_out[name] for name in self.names if name in whole.left_out}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self._boxed.class_names

    def boxes(self, index: int) -> Boxes:
        """Look up the boxes of one image of the part."""
        return self._boxed.boxes(self._indices[index])


class MaskSubset(Subset, MaskDataset):
    """Some images of a data set with masks."""

    def __init__(self, whole: MaskDataset, indices: Sequence[int]):
        super().__init__(whole, indices)
        self._masks = whole

    @property
    def class_names(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self._masks.class_names

    def mask(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Decode one mask of the part."""
        return self._masks.mask(self._indices[index])


def part_of(whole: Dataset, indices: Sequence[int]) -> Subset:
    """Take some images of a data set, with whatever annotation they have."""
    if isinstance(whole, BoxDataset):
        return BoxSubset(whole, indices)
    return MaskSubset(whole, indices) if isinstance(whole, MaskDataset) else Subset(whole, indices)
