"""Textures of the procedural set: random numbers → **textures** → shapes.

All families (noise, stripes, checks, gradients) are one formula: a sum of plane waves, squashed.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from crosscontext.shapes import Float, Int64


class Family(NamedTuple):
    """A kind of texture: a sum of plane waves, squashed by tanh. Pairs are the ends of uniform ranges."""

    waves: int
    """How many waves take part; the second one stands across the first."""

    frequency: tuple[float, float]
    """Periods along the side of the picture."""

    octaves: float
    """Spread of the frequencies within one picture."""

    gain: tuple[float, float]
    """Factor before tanh: small for soft waves, large for hard edges."""


BACKGROUNDS = (
    Family(waves=8, frequency=(1, 2), octaves=0.5, gain=(0.7, 1.5)),  # out of focus
    Family(waves=1, frequency=(0.2, 0.5), octaves=0, gain=(1, 1.5)),  # gradient
)
SURFACES = (
    Family(waves=1, frequency=(0.05, 0.1), octaves=0, gain=(0.2, 0.4)),  # plain
    Family(waves=1, frequency=(2, 2.6), octaves=0, gain=(3, 6)),  # wide stripes
    Family(waves=1, frequency=(6, 7.5), octaves=0, gain=(3, 6)),  # narrow stripes
    Family(waves=2, frequency=(1.6, 2.2), octaves=0, gain=(3, 6)),  # large checks
    Family(waves=2, frequency=(4.5, 6), octaves=0, gain=(3, 6)),  # small checks
    Family(waves=8, frequency=(1.5, 2.2), octaves=0.3, gain=(2, 4)),  # large spots
    Family(waves=8, frequency=(4.5, 6), octaves=0.3, gain=(2, 4)),  # small spots
    Family(waves=1, frequency=(0.3, 0.5), octaves=0, gain=(2, 3)),  # shaded
    Family(waves=8, frequency=(8, 10), octaves=0.3, gain=(2, 4)),  # grain
    Family(waves=1, frequency=(3.4, 4.4), octaves=0, gain=(3, 6)),  # stripes
)
_WAVES = 8
NUM_DRAWS = 2 + 3 * _WAVES
"""Random numbers that one texture takes."""


def textures(
    families: Sequence[Family],
    chosen: Int64[np.ndarray, " N"],
    numbers: Float[np.ndarray, "N n"],
    image_size: int,
) -> Float[np.ndarray, "N S S"]:
    """Draw one texture an image, of a given family, of random direction, scale and hardness.

    A wave cos(2π(fx·x + fy·y + p)) is the sum of two products of a column and a row, so that all waves
    of a picture together are one small matrix product, without a cosine at each pixel.

    Args:
        families: to choose from.
        chosen: index into the families, for each image.
        numbers: `NUM_DRAWS` numbers in [0, 1) an image.
        image_size: side of the picture, in pixels.

    Returns:
        Values in (-1, 1), symmetric about 0 in distribution.
    """
    columns = (np.array(column, np.float32)[chosen] for column in zip(*families, strict=True))
    num_waves, frequency, octaves, gain = columns
    frequencies, phases, angles = np.split(numbers[:, 2:].copy(), 3, axis=1)  # (N, waves) each
    frequencies = between(numbers[:, :1], *frequency.T[..., None]) * 2 ** (octaves[:, None] * frequencies)
    angles[:, 1] = angles[:, 0] + 0.25
    takes_part = np.arange(_WAVES) < num_waves[:, None]
    amplitudes = takes_part * between(numbers[:, 1:2], *gain.T[..., None]) / np.sqrt(num_waves)[:, None]

    radians = 2 * np.pi * pixel_centres(image_size)
    turns = 2 * np.pi * angles
    across = (frequencies * np.cos(turns))[..., None] * radians  # (N, waves, S)
    down = (frequencies * np.sin(turns))[..., None] * radians + (2 * np.pi * phases)[..., None]
    left = np.concatenate([np.cos(down), -np.sin(down)], axis=1)  # (N, 2 waves, S)
    right = np.concatenate([np.cos(across), np.sin(across)], axis=1) * np.tile(amplitudes, 2)[..., None]
    return np.asarray(np.tanh(left.transpose(0, 2, 1) @ right))


def between(
    numbers: Float[np.ndarray, "*shape"], low: float | np.ndarray, high: float | np.ndarray
) -> Float[np.ndarray, "*shape"]:
    """Move numbers from [0, 1) to [low, high)."""
    return low + (high - low) * numbers


def pixel_centres(image_size: int) -> Float[np.ndarray, " S"]:
    """Places of the pixels along one side of the picture, whose length is 1."""
    return ((np.arange(image_size) + 0.5) / image_size).astype(np.float32)
