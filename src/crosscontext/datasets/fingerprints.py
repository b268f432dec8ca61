"""How images are recognised again without being decoded: files or pixels → **fingerprints** → text.

A fingerprint, 16 hexadecimal digits, covers names and content of the images, not their annotation.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from crosscontext.shapes import UInt8


def of_files(root: Path, names: Sequence[str]) -> str:
    """Recognise files by their names, sizes and times of change; none is read.

    Args:
        root: where the names begin; it may move.
        names: of the files.
    """
    return _digest(json.dumps([name, *_status(root / name)]).encode() for name in names)


def of_pixels(pixels: UInt8[np.ndarray, "N ..."], names: Sequence[str]) -> str:
    """Recognise images in memory by all of their bytes, of which a second takes a gigabyte or so."""
    head = json.dumps([pixels.shape, list(names)]).encode()
    return _digest(chain([head], (image.tobytes() for image in pixels)))


def of_part(whole: str | None, indices: Sequence[int]) -> str | None:
    """Recognise a part of a set, in its order; None where the set itself is not known."""
    return None if whole is None else _digest([json.dumps([whole, list(indices)]).encode()])


def _status(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # a broken link, say: decoding will tell
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _digest(pieces: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()[:16]
