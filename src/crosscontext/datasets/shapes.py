"""A procedural labelled set that needs no file: (seed, split, index) → **shapes** → image.

One object of ten classes on a textured background, of random place, scale, turn, colour and light, among
clutter. A class is an outline with a kind of surface; colour, intensity and area are independent of it.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from typing import Annotated, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.datasets.contract import Labels, Splits
from crosscontext.datasets.silhouettes import SILHOUETTES, Plane
from crosscontext.datasets.textures import (
    BACKGROUNDS,
    NUM_DRAWS,
    SURFACES,
    between,
    pixel_centres,
    textures,
)
from crosscontext.randomness import uniforms
from crosscontext.settings import Settings
from crosscontext.shapes import Float, Int64, UInt8

# How hard it is: 10 000 training and 2 000 test images of 32 px, seed 0, top-1 accuracy, chance 10 %.
# Colour histograms: 17 % at most. Raw pixels: 1-NN 33 %, 20-NN 27 %, logistic regression 16 %. ResNet-10, an
# eighth as wide: random weights 20-NN 26 %, logistic regression 27 %; supervised 91 % after 20 epochs
# (bench/shapes_supervised.py).
CLASS_NAMES = tuple(SILHOUETTES)
_CHUNK = 128  # images rendered at once: their float planes stay in the processor's cache
_STREAM = 255  # of the random numbers; apart from those of views and loading

_Canvas: TypeAlias = Float[np.ndarray, "N 3 S S"]
"""Colours; 0 is black, 1 is white."""


class ShapesSettings(Settings):
    """Ten outlines drawn on textures, rendered when opened: no files, no download."""

    name: Literal["shapes"] = "shapes"
    """The procedural set."""

    num_train: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Images of the training part."""

    num_test: Annotated[int, Field(ge=0, le=1_000_000)] = 2_000
    """Images of the test part; 0 for none."""

    image_size: Annotated[int, Field(ge=16, le=256)] = 32
    """Side of the square images, in pixels."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Another seed gives other images of the same classes."""

    def open(self) -> Splits:
        """Render both parts into memory: about 0.2 ms of one core and 3 kB an image at 32 px."""
        test = self._part("test", self.num_test) if self.num_test else None
        return Splits(self._part("train", self.num_train), test)

    def _part(self, split: Literal["train", "test"], size: int) -> ArrayDataset:
        indices = np.arange(size)
        chunks = np.array_split(indices, -(-size // _CHUNK))
        with ThreadPoolExecutor() as pool:
            images = list(pool.map(lambda chunk: render(self.seed, split, chunk, self.image_size), chunks))
        names = [f"{split}/{index:06d}" for index in indices]
        return ArrayDataset(np.concatenate(images), names, Labels(CLASS_NAMES, classes_of(indices)))


def classes_of(indices: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """The class of each image; the classes take turns, so that any part of the set is balanced."""
    return indices % len(CLASS_NAMES)


def render(
    seed: int, split: Literal["train", "test"], indices: Int64[np.ndarray, " N"], image_size: int
) -> UInt8[np.ndarray, "N S S 3"]:
    """Draw images, each a function of (seed, split, index) alone.

    Args:
        seed: of the whole set, in [0, 2³²).
        split: the two parts draw from disjoint random streams.
        indices: in [0, 2³²).
        image_size: side in pixels. The same scene at any size, but for the sensor noise.

    Returns:
        RGB pictures.
    """
    draws = _Draws(seed, split, indices)
    canvas, paint = _paints(draws, image_size)
    _add_clutter(draws, canvas)
    _blend(canvas, paint, _object_distances(draws, image_size))
    return _photograph(draws, canvas)


class _Purpose(IntEnum):
    """What random numbers are for; each purpose has numbers of its own."""

    BACKGROUND_TEXTURE = 0
    OBJECT_TEXTURE = 1
    COLOUR = 2
    CLUTTER = 3
    POSE = 4
    LIGHT = 5
    NOISE = 6
    BACKGROUND_KIND = 7


class _Draws(NamedTuple):
    """Source of the random numbers of some images."""

    seed: int
    split: Literal["train", "test"]
    indices: NDArray[np.int64]

    def of(self, purpose: _Purpose, *shape: int) -> Float[np.ndarray, "N ..."]:
        """Numbers in [0, 1): the given shape, for each image."""
        part = ("train", "test").index(self.split)
        numbers = uniforms(self.seed, part, self.indices, purpose, count=math.prod(shape), stream=_STREAM)
        below_one = np.minimum(numbers, 1 - 2.0**-24)  # float32 would round the largest ones up to 1
        return np.asarray(below_one, dtype=np.float32).reshape(-1, *shape)


def _paints(draws: _Draws, image_size: int) -> tuple[_Canvas, _Canvas]:
    """Colour of background and of object at each pixel: a muted base, and a tint that follows a texture.

    The object's base is the farthest of four random colours from the background's, or else many objects could
    not be seen. Neither is lighter than the other on average. The surface of an object is that of its class;
    the background is out of focus.
    """
    numbers = draws.of(_Purpose.COLOUR, 7, 3)
    bases = between(numbers[:, :5, :1], 0.25, 0.75) + between(numbers[:, :5], -0.06, 0.06)
    background, candidates = bases[:, 0], bases[:, 1:]
    farthest = np.square(candidates - background[:, None]).sum(axis=2).argmax(axis=1)
    chosen = candidates[np.arange(len(farthest)), farthest]
    behind, before = between(numbers[:, 5], -0.1, 0.1), between(numbers[:, 6], -0.1, 0.1)
    before += np.where(before < 0, -0.2, 0.2)  # a surface can be seen
    kinds = draws.of(_Purpose.BACKGROUND_KIND, 1)[:, 0]
    blurred = (kinds * len(BACKGROUNDS)).astype(np.int64)
    classes = classes_of(draws.indices)
    of_background = textures(
        BACKGROUNDS, blurred, draws.of(_Purpose.BACKGROUND_TEXTURE, NUM_DRAWS), image_size
    )
    of_object = textures(SURFACES, classes, draws.of(_Purpose.OBJECT_TEXTURE, NUM_DRAWS), image_size)
    return _paint(background, behind, of_background), _paint(chosen, before, of_object)


def _paint(
    base: Float[np.ndarray, "N 3"], tint: Float[np.ndarray, "N 3"], texture: Float[np.ndarray, "N S S"]
) -> _Canvas:
    return np.asarray(base[..., None, None] + tint[..., None, None] * texture[:, None])


def _add_clutter(draws: _Draws, canvas: _Canvas) -> None:
    """Paint up to four plain small blocks and blobs onto the background."""
    for numbers in draws.of(_Purpose.CLUTTER, 4, 10).transpose(1, 2, 0):
        is_block, is_absent = numbers[8:] < 0.5
        x, y = _points(canvas.shape[-1], numbers[0], numbers[1], np.pi * numbers[2])
        width, height = between(numbers[3:5, :, None, None], 0.02, 0.08)
        x, y = np.abs(x) / width, np.abs(y) / height
        radii = np.sqrt(x * x + y * y)
        radii[is_block] = np.maximum(x[is_block], y[is_block])
        distances = (radii - 1) * np.minimum(width, height)
        distances[is_absent] = np.inf
        _blend(canvas, between(numbers[5:8], 0.15, 0.85).T[..., None, None], distances)


def _object_distances(draws: _Draws, image_size: int) -> Plane:
    """Signed distance of each pixel from the outline of the object, in sides of the picture."""
    across, down, turn, scale, stretch = draws.of(_Purpose.POSE, 5).T
    angles = between(turn, -1.0, 1.0) * np.pi
    x, y = _points(image_size, between(across, 0.22, 0.78), between(down, 0.22, 0.78), angles)
    radii, stretches = _per_image(between(scale, 0.26, 0.4)), _per_image(1.2 ** between(stretch, -1.0, 1.0))
    x, y = x / (radii * stretches), y * stretches / radii  # the area stays π radii²
    distances = np.empty_like(x)
    classes = classes_of(draws.indices)
    for number, silhouette in enumerate(SILHOUETTES.values()):
        members = classes == number
        distances[members] = silhouette(x[members], y[members])
    return np.asarray(distances * radii)


def _points(
    image_size: int,
    across: Float[np.ndarray, " N"],
    down: Float[np.ndarray, " N"],
    angles: Float[np.ndarray, " N"],
) -> tuple[Plane, Plane]:
    """Coordinates of the pixels in frames that stand at (across, down) and are turned."""
    centres = pixel_centres(image_size)
    x = centres[None, None, :] - _per_image(across)
    y = centres[None, :, None] - _per_image(down)
    cosines, sines = _per_image(np.cos(angles)), _per_image(np.sin(angles))
    return cosines * x + sines * y, cosines * y - sines * x


def _blend(canvas: _Canvas, paint: Float[np.ndarray, "N 3 _ _"], distances: Plane) -> None:
    """Paint over what lies inside of an outline; pixels on the outline are mixed (antialiased)."""
    coverage = np.clip(0.5 - distances * canvas.shape[-1], 0, 1)[:, None]
    canvas += coverage * (paint - canvas)


def _photograph(draws: _Draws, canvas: _Canvas) -> UInt8[np.ndarray, "N S S 3"]:
    """Light that falls off to a random side, exposure and sensor noise, then eight bits."""
    direction, fall, exposure, noise = draws.of(_Purpose.LIGHT, 4).T
    middle = np.full_like(direction, 0.5)
    along, _ = _points(canvas.shape[-1], middle, middle, 2 * np.pi * direction)
    light = _per_image(between(exposure, 0.75, 1.25)) * (1 + _per_image(between(fall, 0.0, 0.8)) * along)
    # Uniform, not Gaussian, noise of the same deviation: one random number a value is enough.
    deviation = _per_image(between(noise, 0.01, 0.04))[:, None]
    grain = between(draws.of(_Purpose.NOISE, *canvas.shape[1:]), -(3**0.5), 3**0.5)
    exposed = np.clip(canvas * light[:, None] + deviation * grain, 0, 1)
    return np.asarray((exposed * 255 + 0.5).astype(np.uint8).transpose(0, 2, 3, 1))


def _per_image(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, "N 1 1"]:
    return values[:, None, None]
