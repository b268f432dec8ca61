"""Images and classes as IDX files, the format of MNIST: arrays of bytes → **idx** → images in memory."""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Labels, Splits
from crosscontext.datasets.labelling import number_classes
from crosscontext.errors import DataError
from crosscontext.settings import AbsolutePath, Settings
from crosscontext.shapes import UInt8

_NAME = re.compile(r"(?P<part>train|t10k|test)-(?P<content>images|labels)[.-]idx\d-ubyte(\.gz)?")
_MOST_DEFLATED = 1032
"""Bytes that one of a gzip file can stand for at most."""


class IdxSettings(Settings):
    """A folder with `train-images-idx3-ubyte` and the like, as MNIST and its kin are published."""

    name: Literal["idx"] = "idx"
    """IDX files."""

    path: AbsolutePath
    """Folder of `train-images-idx3-ubyte` and, where there are, `train-labels-…`, `t10k-images-…` and
    `t10k-labels-…`; plain or with the ending .gz."""

    def open(self) -> Splits:
        """Load both parts into memory; classes are called by their numbers.

        Raises:
            DataError: a file is missing, damaged, or not what its name says.
        """
        return read(self.path)


def recognises(folder: Path) -> bool:
    """Tell whether a folder has training images in an IDX file."""
    return _file(folder, ("train",), "images") is not None


def read(folder: Path, class_names: Sequence[str] | None = None) -> Splits:
    """Load the parts of a set into memory.

    Args:
        folder: of the files.
        class_names: by number; by default the numbers themselves.

    Raises:
        DataError: a file is missing, damaged, or not what its name says.
    """
    train, test = (_part(folder, names, class_names) for names in (("train",), ("t10k", "test")))
    if train.pixels is None:
        raise DataError(f"{folder} has no file train-images-idx3-ubyte. Give the folder that holds it.")
    train_labels, test_labels = number_classes([train.classes, test.classes])
    tested = None if test.pixels is None else _dataset("test", test.pixels, test_labels)
    return Splits(_dataset("train", train.pixels, train_labels), tested)


class _Part(NamedTuple):
    pixels: UInt8[np.ndarray, "N H W"] | None
    classes: list[str] | None


def _dataset(part: str, pixels: UInt8[np.ndarray, "N H W"], labels: Labels | None) -> ArrayDataset:
    return ArrayDataset(pixels, [f"{part}/{index:06d}" for index in range(len(pixels))], labels)


def _part(folder: Path, names: Sequence[str], class_names: Sequence[str] | None) -> _Part:
    images, labels = (_file(folder, names, content) for content in ("images", "labels"))
    pixels = None if images is None else _array(images, rank=3)
    if pixels is None or labels is None:
        return _Part(pixels, None)
    classes = _array(labels, rank=1)
    if len(classes) != len(pixels):
        raise DataError(
            f"{labels} has {len(classes)} classes, but there are {len(pixels)} images beside it. "
            "Put files of the same set into the folder."
        )
    if class_names is not None and classes.max() >= len(class_names):
        raise DataError(
            f"{labels} has a class {classes.max()}, but the set has {len(class_names)} classes. "
            "Put the files of this set into the folder."
        )
    return _Part(pixels, [str(n) if class_names is None else class_names[n] for n in classes.tolist()])


def _file(folder: Path, parts: Sequence[str], content: str) -> Path | None:
    """Find the file of a part; a plain one goes before a compressed one."""
    if not folder.is_dir():
        return None
    found = [
        file
        for file in folder.iterdir()
        if (match := _NAME.fullmatch(file.name)) and match["part"] in parts and match["content"] == content
    ]
    return min(found, key=lambda file: (file.suffix == ".gz", file.name), default=None)


def _array(file: Path, rank: int) -> UInt8[np.ndarray, "..."]:
    """Read one file: two zeros, the code of uint8, the rank, the sizes as big-endian numbers, the bytes."""
    compressed = file.suffix == ".gz"
    try:
        with gzip.open(file) if compressed else file.open("rb") as stream:
            magic, due = stream.read(4), bytes([0, 0, 8, rank])
            if magic != due:
                raise ValueError(f"it begins with {magic.hex(' ')}, not with {due.hex(' ')}")
            shape = struct.unpack(f">{rank}I", stream.read(4 * rank))
            size = math.prod(shape)
            if not 0 < size <= file.stat().st_size * (_MOST_DEFLATED if compressed else 1):
                raise ValueError(f"it announces {size} bytes")
            content = stream.read(size + 1)
        if len(content) != size:
            has = "more" if len(content) > size else str(len(content))
            raise ValueError(f"it announces {size} bytes and has {has}")
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as cause:
        raise DataError(f"{file} is no whole IDX file: {cause}. Fetch it again.") from cause
    return np.frombuffer(content, np.uint8).reshape(shape)
