"""Boxes of pictures → square crops: bilinear and antialiased, as Pillow's `crop` and `resize` do it.

decoded pixels → **resampling** → photometry. Small pictures are resampled many at once, by two products with
small matrices; larger ones singly, by PyTorch's routine for bytes.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64

from crosscontext.shapes import Bool, Float, UInt8

SMALL = 40
"""Side in pixels up to which pictures are resampled together; measured: from 48 on, singly is faster."""

_ONE = 2**16


def crop(
    pictures: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    boxes: Int64[np.ndarray, "B 4"],
    flips: Bool[np.ndarray, " B"],
    size: int,
) -> UInt8[np.ndarray, "B 3 S S"]:
    """Cut a box out of each picture, make it a square, mirror some.

    Nothing depends on which pictures are cropped together.

    Args:
        pictures: of any sizes.
        boxes: left, top, width and height of the box in each picture, in pixels; it lies inside.
        flips: which crops are mirrored left to right.
        size: side S of the crops, in pixels.

    Returns:
        The crops. Some of their values differ from Pillow's by one level, for other rounding.
    """
    crops = empty_crops(len(pictures), size)
    small = defaultdict(list)
    for row, picture in enumerate(pictures):
        if max(*picture.shape[:2], size) <= SMALL:
            small[picture.shape].append(row)
        else:
            crops[row] = _crop_one(picture, boxes[row], bool(flips[row]), size)
    for rows in small.values():
        crops[rows] = _crop_together(np.stack([pictures[i] for i in rows]), boxes[rows], flips[rows], size)
    return crops


def empty_crops(number: int, size: int) -> UInt8[np.ndarray, "B 3 S S"]:
    """Allocate crops as they are made: small ones plane by plane, larger ones pixel by pixel."""
    if size <= SMALL:
        return np.empty((number, 3, size, size), dtype=np.uint8)
    return np.empty((number, size, size, 3), dtype=np.uint8).transpose(0, 3, 1, 2)


def _crop_one(
    picture: UInt8[np.ndarray, "H W 3"], box: Int64[np.ndarray, " 4"], flip: bool, size: int
) -> UInt8[np.ndarray, "3 S S"]:
    left, top, width, height = box.tolist()
    part = torch.from_numpy(picture[top : top + height, left : left + width])[None].permute(0, 3, 1, 2)
    square = F.interpolate(part, size=(size, size), mode="bilinear", antialias=True)
    return np.asarray((square.flip(3) if flip else square)[0].numpy())


def _crop_together(
    pictures: UInt8[np.ndarray, "B H W 3"],
    boxes: Int64[np.ndarray, "B 4"],
    flips: Bool[np.ndarray, " B"],
    size: int,
) -> UInt8[np.ndarray, "B 3 S S"]:
    """Resample along the rows, round, resample along the columns, round.

    Weights are multiples of 2⁻¹⁶ and pixels are bytes, so float32 holds every sum exactly, in whatever order
    it is added up: the result depends neither on the batch nor on the machine.
    """
    num, height, width, _ = pictures.shape
    left, top, box_width, box_height = boxes.T
    across = _weights(width, size)[left, box_width]  # (B, S, W)
    across[flips] = across[flips, ::-1]
    down = _weights(height, size)[top, box_height]  # (B, S, H)
    planes = pictures.transpose(0, 3, 1, 2).astype(np.float32)
    narrow = planes.reshape(num, 3 * height, width) @ across.mT
    narrow += 0.5
    np.floor(narrow, out=narrow)
    square = down[:, None] @ narrow.reshape(num, 3, height, size)
    square += 0.5
    return np.asarray(square, dtype=np.uint8)


@lru_cache(maxsize=16)
def _weights(extent: int, size: int) -> Float[np.ndarray, "starts lengths S extent"]:
    """Weight of each pixel of a line for each pixel of each of its resized parts.

    Args:
        extent: pixels of the line.
        size: S, to which a part is resized.

    Returns:
        At [start, length, i, x], the weight of pixel x for pixel i of the part of `length` pixels from
        `start`: a triangle around the place of i, as wide as two pixels of the finer of both grids.
    """
    starts, lengths = np.arange(extent)[:, None, None, None], np.arange(extent + 1)[:, None, None]
    scales = lengths / size
    centres = starts + (np.arange(size)[:, None] + 0.5) * scales
    places = np.arange(extent) + 0.5
    weights = np.maximum(1 - np.abs(places - centres) / np.maximum(scales, 1), 0)
    weights *= (places > starts) & (places < starts + lengths)
    weights /= np.maximum(weights.sum(axis=-1, keepdims=True), 1e-9)  # empty parts have none
    return np.asarray(np.rint(weights * _ONE) / _ONE, dtype=np.float32)
