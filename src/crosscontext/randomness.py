"""Randomness without state: every draw is a function of (seed, epoch, image, view).

A counter-based generator has no history, so resuming needs no random state, the number of workers or
ranks changes nothing, and any view of any image can be drawn again alone.
"""

import numpy as np
from jaxtyping import Float64, Int64, UInt32
from numpy.typing import NDArray

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)
_ROUNDS = 10


def philox(counter: UInt32[np.ndarray, "N 4"], key: tuple[int, int]) -> UInt32[np.ndarray, "N 4"]:
    """Scramble counters into random words: Philox-4x32-10, one call for many counters.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3. NumPy's
    own Philox gives one stream an object, which is 100 times slower for a few draws of many images.

    Args:
        counter: four 32-bit words a row; different rows give independent words.
        key: two words in [0, 2³²), the stream.

    Returns:
        Four uniform 32-bit words a row.
    """
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = (np.uint64(word) for word in key)
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _WORD) ^ c1 ^ k0, p1 & _LOW, (p0 >> _WORD) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & _LOW, (k1 + _KEY_STEPS[1]) & _LOW
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def uniforms(
    seed: int, epoch: int, images: Int64[np.ndarray, " B"], view: int, *, count: int, stream: int = 0
) -> Float64[np.ndarray, "B count"]:
    """Draw `count` numbers in [0, 1) for each image.

    Args:
        seed: of the run, in [0, 2³²).
        epoch: may be negative: the epochs before the first one serve to fill the memory.
        images: indices in the data set, in [0, 2³²).
        view: number of the view, in [0, 2¹⁶).
        count: draws an image. Asking for more leaves the first ones as they were.
        stream: purpose of the draws, in [0, 2⁸); different streams are independent.

    Returns:
        One row an image; row *i* depends on image *i* alone, not on its neighbours in the batch.
    """
    blocks = -(-count // 4)
    counter = np.empty((len(images), blocks, 4), dtype=np.uint32)
    counter[..., 0] = images.astype(np.uint32)[:, None]
    counter[..., 1] = np.uint32(epoch & 0xFFFFFFFF)
    counter[..., 2] = np.arange(blocks, dtype=np.uint32)
    counter[..., 3] = np.uint32(view | stream << 16)
    words = philox(counter.reshape(-1, 4), (seed & 0xFFFFFFFF, 0))
    return words.reshape(len(images), -1)[:, :count] / 2.0**32


def permutation(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """Order of the images in one epoch: a permutation of range(size), a function of seed and epoch."""
    generator = np.random.Generator(np.random.Philox(key=[seed & 0xFFFFFFFF, epoch & 0xFFFFFFFF]))
    return generator.permutation(size)
