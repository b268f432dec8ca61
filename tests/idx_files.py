"""Files in the format of MNIST."""

import gzip
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write a magic number with the rank, sizes, bytes; compressed where the path ends so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def lay_out_idx(folder: Path, *, compressed: bool = False) -> None:
    """Write four training and two test images; image i is filled with i, and of class 9 − i."""
    for prefix, size in (("train", 4), ("t10k", 2)):
        numbers, ending = np.arange(size), ".gz" * compressed
        images = np.tile(numbers[:, None, None], (1, 28, 28))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", 9 - numbers)
