"""What a data set offers: named images by index, and labels, boxes or masks where they exist.

files → **datasets** → views
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosscontext.errors import ImageError
from crosscontext.shapes import Bool, Float32, Int64, UInt8

Annotation = Literal["none", "classes", "boxes", "masks"]
"""What is known of the images: nothing, one class each, boxes with a class each, or a class a pixel."""


class Labels(NamedTuple):
    """One class an image."""

    class_names: tuple[str, ...]
    """In sorted order; the class of an image is an index into it."""

    classes: NDArray[np.int64]
    """Shape (N,), in [0, len(class_names))."""


class Boxes(NamedTuple):
    """The objects of one image."""

    corners: Float32[np.ndarray, "M 4"]
    """Left, top, right and bottom edge in pixels of the whole image, all inside it, with an area above 0."""

    classes: Int64[np.ndarray, " M"]
    """Indices into the class names of the data set."""

    difficult: Bool[np.ndarray, " M"]
    """Objects that a detector may find or not (``difficult`` of Pascal VOC, ``iscrowd`` of COCO)."""


Reduction = Callable[[int, int], int]
"""Width and height of an image → by how much both may be divided at decoding: 1, 2, 4 or 8."""


class Dataset(ABC):
    """Random access to N images; safe to read from several threads at once."""

    names: Sequence[str]
    """A stable name for each image, e.g. its path below the folder; its length is N."""

    labels: Labels | None
    """None where the images have no labels."""

    @property
    def annotation(self) -> Annotation:
        """What is known of the images."""
        return "none" if self.labels is None else "classes"

    @property
    def class_names(self) -> tuple[str, ...]:
        """What classes are indices into; empty without annotation."""
        return () if self.labels is None else self.labels.class_names

    def annotation_digest(self) -> str:
        """Identify the images by names and annotation, wherever they lie: 16 hexadecimal digits."""
        classes = None if self.labels is None else self.labels.classes.tolist()
        listed = json.dumps([self.class_names, list(self.names), classes])
        return hashlib.sha256(listed.encode()).hexdigest()[:16]

    def fingerprint(self) -> str | None:
        """Identify names and content of the images, wherever they lie, without decoding them.

        Returns:
            16 hexadecimal digits, which change with any image (see `fingerprints.py`); None where there is no
            cheap way to tell, so that nothing which was computed from the images can be used again.
        """
        return None

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

    def content(self, index: int) -> bytes | None:
        """Read one image file as it is stored.

        Returns:
            Its bytes; None where the set holds pixels and no files.

        Raises:
            ImageError: the bytes cannot be read; the message has its name and the cause.
        """
        return None


class BoxDataset(Dataset):
    """Images with boxes; for whoever asks for nothing else, plain images without labels."""

    labels = None

    left_out: Mapping[str, Sequence[str]]
    """Name of an image → what is wrong with each of its boxes that were left out."""

    @property
    def annotation(self) -> Annotation:
        """Each image has any number of boxes, also none."""
        return "boxes"

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """What classes are indices into."""

    @abstractmethod
    def boxes(self, index: int) -> Boxes:
        """Look up the boxes of one image; the image is not read."""

    def annotation_digest(self) -> str:
        """Identify the images by names, classes and boxes: 16 hexadecimal digits."""
        sha = hashlib.sha256(json.dumps([self.class_names, list(self.names)]).encode())
        for index in range(len(self.names)):
            corners, classes, difficult = self.boxes(index)
            sha.update(len(classes).to_bytes(4))
            sha.update(corners.astype("<f4").tobytes())
            sha.update(classes.astype("<i8").tobytes())
            sha.update(difficult.tobytes())
        return sha.hexdigest()[:16]


class Splits(NamedTuple):
    """The parts of a data set. Pretraining and probes learn from `train` alone."""

    train: Dataset
    test: Dataset | None
    """None where the data set has no test part of its own."""


IGNORED: Final = 255
"""In a mask: a pixel that is neither learned from nor judged."""


class MaskDataset(Dataset):
    """Images with a class for each pixel."""

    labels: Labels | None = None

    @property
    def annotation(self) -> Annotation:
        """Masks."""
        return "masks"

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """What the numbers in the masks are indices into; at most 255."""

    @abstractmethod
    def mask(self, index: int) -> UInt8[np.ndarray, "H W"]:
        """Decode the mask of one image, which has the same size.

        Returns:
            Indices of classes, or `IGNORED`.

        Raises:
            ImageError: the mask cannot be decoded; the message has its name and the cause.
            DataError: it has colours, or a value that is neither a class nor ignored.
        """

    def annotation_digest(self) -> str:
        """Identify the images by names, classes and the pixels of all masks, which are read for that.

        Raises:
            DataError: as of `mask`; a mask that cannot be decoded counts as such.
        """
        sha = hashlib.sha256(json.dumps([self.class_names, list(self.names)]).encode())
        for index in range(len(self.names)):
            try:
                mask = self.mask(index)
            except ImageError:
                sha.update(b"unreadable")
            else:
                sha.update(str(mask.shape).encode() + mask.tobytes())
        return sha.hexdigest()[:16]
