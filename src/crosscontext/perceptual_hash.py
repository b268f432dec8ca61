"""Which pictures are nearly the same, without a network: pixels → **sketch** → groups.

A sketch has a hash, by which candidates are looked up, and a small grey picture, which decides.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crosscontext.shapes import Float32, Int64, UInt8

MOST_BITS: Final = 7
"""Bits in which the hashes of two copies may differ."""

LEAST_CORRELATION: Final = 0.95
"""Of the small grey pictures of two copies."""

_SIDE, _FREQUENCIES = 32, 8
_BLANK: Final = 2.0  # grey levels: deviation of a picture that shows nothing
_BANDS, _BAND_BITS = 4, 16
_ASKED_AT_ONCE: Final = 64
_MANY: Final = 4  # candidates of 64 pictures, in numbers of pictures
_LEVELS: Final = 256


class Sketch(NamedTuple):
    """What is kept of a picture."""

    bits: int
    """64 of them: which low frequencies are stronger than the middle one."""

    grey: bytes
    """16 × 16 grey levels."""

    blank: bool
    """Whether there is next to nothing to see."""


def sketch(pixels: UInt8[np.ndarray, "H W 3"]) -> Sketch:
    """Describe a picture so that copies of other size, compression and brightness are known again.

    The hash is that of Zauner ("Implementation and benchmarking of perceptual image hash functions", 2010,
    section 3.2.1): the 8 × 8 lowest frequencies of the cosine transform of 32 × 32 grey levels, compared with
    their median.
    """
    small = Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    levels = np.asarray(small, np.float32)
    frequencies = (_COSINES @ levels @ _COSINES.T).ravel()
    frequencies[0] = 0  # the brightness
    bits = int.from_bytes(np.packbits(frequencies > np.median(frequencies)).tobytes())
    quarters = levels.reshape(_SIDE // 2, 2, _SIDE // 2, 2).mean(axis=(1, 3))
    return Sketch(bits, np.rint(quarters).astype(np.uint8).tobytes(), bool(levels.std() < _BLANK))


def near_groups(sketches: Sequence[Sketch]) -> list[list[int]]:
    """Group pictures that are nearly the same.

    Groups are stars: each picture resembles the first one of its group, which comes first in the order given.
    Those that are in a group ask for no others, so that a thousand copies cost little.

    Returns:
        Indices, at least two a group.
    """
    bits = np.array([each.bits for each in sketches], np.uint64)
    grey = _standardised(
        np.frombuffer(b"".join(each.grey for each in sketches), np.uint8).reshape(-1, _LEVELS)
    )
    bands = [_Band.of(bits, number) for number in range(_BANDS)]
    groups, taken = [], np.zeros(len(sketches), bool)
    start = 0
    while len(block := start + np.flatnonzero(~taken[start:])[:_ASKED_AT_ONCE]):
        start = int(block[-1]) + 1
        asking, near_ones = _near_pairs(block, bits, grey, bands)
        for first in block.tolist():
            if taken[first]:
                continue
            near = near_ones[slice(*np.searchsorted(asking, [first, first + 1]))]
            near = near[~taken[near] & (near != first)]
            if len(near):
                groups.append([first, *near.tolist()])
                taken[groups[-1]] = True
    return groups


class _Band(NamedTuple):
    """16 of the 64 bits: which pictures have which value there."""

    keys: NDArray[np.uint16]
    """Of each picture."""

    order: Int64[np.ndarray, " N"]
    """The pictures, sorted by key."""

    starts: Int64[np.ndarray, " V"]
    """Where those of each key begin in that order, and where the last ones end."""

    @classmethod
    def of(cls, bits: NDArray[np.uint64], number: int) -> "_Band":
        """Sort the pictures by one band."""
        keys = (bits >> np.uint64(number * _BAND_BITS)).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        return cls(keys, order, np.searchsorted(keys[order], np.arange(2**_BAND_BITS + 1)))


def _near_pairs(
    asking: Int64[np.ndarray, " Q"],
    bits: NDArray[np.uint64],
    grey: Float32[np.ndarray, "N 256"],
    bands: Sequence[_Band],
) -> tuple[Int64[np.ndarray, " P"], Int64[np.ndarray, " P"]]:
    """Find the pictures that resemble some pictures, each of them among the others; pairs come in order.

    Multi-index hashing (Norouzi et al., CVPR 2012, arXiv 1307.2982): where 64 bits differ in at most 7, one
    of four bands differs in at most one bit, and is found in a list of the keys of that band. Where pictures
    are so alike that these lists are long, comparing with all is cheaper.
    """
    wanted = [(band.keys[asking][:, None] ^ _FLIPS).ravel().astype(np.int64) for band in bands]  # (Q · 17)
    counts = [np.diff(band.starts)[keys] for band, keys in zip(bands, wanted, strict=True)]
    if sum(int(each.sum()) for each in counts) > _MANY * len(bits):
        alike = _distances(bits[asking][:, None], bits) <= MOST_BITS
        rows, others = np.nonzero(alike & (grey[asking] @ grey.T >= LEAST_CORRELATION))
        return asking[rows], others
    pairs = []
    for band, keys, count in zip(bands, wanted, counts, strict=True):
        one = np.repeat(asking.repeat(len(_FLIPS)), count)
        place = np.arange(count.sum()) + np.repeat(band.starts[keys] - (np.cumsum(count) - count), count)
        other = band.order[place]
        close = _distances(bits[one], bits[other]) <= MOST_BITS
        pairs.append(one[close] * len(bits) + other[close])
    one, other = np.divmod(np.unique(np.concatenate(pairs)), len(bits))
    same = np.einsum("pd,pd->p", grey[one], grey[other]) >= LEAST_CORRELATION
    return one[same], other[same]


def _distances(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint8]:
    ones: NDArray[np.uint8] = _ONES[(one ^ other)[..., None].view(np.uint8)].sum(-1, dtype=np.uint8)
    return ones


def _standardised(grey: UInt8[np.ndarray, "N 256"]) -> Float32[np.ndarray, "N 256"]:
    """Subtract the mean and divide by the length, so that products are correlations."""
    centred = grey - grey.mean(axis=1, keepdims=True, dtype=np.float32)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    standardised: Float32[np.ndarray, "N 256"] = centred / np.maximum(lengths, 1e-6)
    return standardised


_COSINES = np.cos(np.pi / _SIDE * np.arange(_FREQUENCIES)[:, None] * (np.arange(_SIDE) + 0.5)).astype(
    np.float32
)
_FLIPS = np.array([0, *(1 << bit for bit in range(_BAND_BITS))], np.uint16)
_ONES = np.array([number.bit_count() for number in range(256)], np.uint8)
