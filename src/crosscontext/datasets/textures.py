"""Textures of the procedural set: random numbers → **textures** → shapes.

Four families (band-passed noise, stripes, checks, gradients) as one formula: a sum of plane waves, squashed.
"""

from typing import NamedTuple

import numpy as np

from crosscontext.shapes import Float


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


FAMILIES = (
    Family(waves=8, frequency=(1.5, 4), octaves=1, gain=(0.7, 2)),  # band-passed noise
    Family(waves=1, frequency=(2, 7), octaves=0, gain=(1, 6)),  # stripes
    Family(waves=2, frequency=(1.5, 5), octaves=0, gain=(1, 6)),  # checks
    Family(waves=1, frequency=(0.2, 0.5), octaves=0, gain=(1, 1.5)),  # gradient
)
_WAVES = max(family.waves for family in FAMILIES)
NUM_DRAWS = 3 + 3 * _WAVES
"""Random numbers that one texture takes."""


def textures(numbers: Float[np.ndarray, "N n"], image_size: int) -> Float[np.ndarray, "N S S"]:
    """Draw one texture an image, of a random family, direction, scale and hardness.

    A wave cos(2π(fx·x + fy·y + p)) is the sum of two products of a column and a row, so that all waves
    of a picture together are one small matrix product, without a cosine at each pixel.

    Args:
        numbers: `NUM_DRAWS` numbers in [0, 1) an image.
        image_size: side of the picture, in pixels.

    Returns:
        Values in (-1, 1), symmetric about 0 in distribution.
    """
    family = (numbers[:, 0] * len(FAMILIES)).astype(np.int64)
    columns = (np.array(column, np.float32)[family] for column in zip(*FAMILIES, strict=True))
    num_waves, frequency, octaves, gain = columns
    frequencies, phases, angles = np.split(numbers[:, 3:].copy(), 3, axis=1)  # (N, waves) each
    frequencies = between(numbers[:, 1:2], *frequency.T[..., None]) * 2 ** (octaves[:, None] * frequencies)
    angles[:, 1] = angles[:, 0] + 0.25
    takes_part = np.arange(_WAVES) < num_waves[:, None]
    amplitudes = takes_part * between(numbers[:, 2:3], *gain.T[..., None]) / np.sqrt(num_waves)[:, None]

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
