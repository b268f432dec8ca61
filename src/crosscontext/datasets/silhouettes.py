"""Outlines of the classes of the procedural set, as signed distances: points → **silhouettes** → shapes.

Negative inside, in the unit of the points, exact near the edges (corners are slightly off). Every outline
encloses the area of the unit disc (π), about the middle of which it lies: neither the number of object pixels
nor their place says anything about the class.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from crosscontext.shapes import Float

Plane: TypeAlias = Float[np.ndarray, "N H W"]
"""One coordinate, or one distance, at each pixel of N pictures; y points down."""


def bar(x: Plane, y: Plane) -> Plane:
    """A lying bar, three times as long as high."""
    return _box(x, y, 1.535, 0.512)


def crescent(x: Plane, y: Plane) -> Plane:
    """A disc less a smaller disc that is shifted to the right."""
    return _both(_radius(x - 0.53, y) - 1.4, 1.15 - _radius(x - 1.343, y))


def cross(x: Plane, y: Plane) -> Plane:
    """An upright cross with four equal arms."""
    return _either(_box(x, y, 1.189, 0.396), _box(x, y, 0.396, 1.189))


def disc(x: Plane, y: Plane) -> Plane:
    """The unit disc."""
    return _radius(x, y) - 1


def ell(x: Plane, y: Plane) -> Plane:
    """The letter L."""
    return _either(_box(x + 0.475, y + 0.318, 0.396, 1.189), _box(x - 0.318, y - 0.475, 1.189, 0.396))


def heart(x: Plane, y: Plane) -> Plane:
    """A square that stands on a corner, with a half disc on both of its upper sides."""
    x = np.abs(x)
    return _either((x + np.abs(y - 0.293)) / 2**0.5 - 0.663, _radius(x - 0.469, y + 0.176) - 0.663)


def ring(x: Plane, y: Plane) -> Plane:
    """An annulus; the hole has 55 % of the diameter."""
    return _both(_radius(x, y) - 1.197, 0.659 - _radius(x, y))


def square(x: Plane, y: Plane) -> Plane:
    """An upright square."""
    return _box(x, y, 0.886, 0.886)


def star(x: Plane, y: Plane) -> Plane:
    """A pentagram: the points that lie on the outer side of at most one of its five lines."""
    return np.asarray(np.partition(_lines(x, y, 5), 3, axis=0)[3] - 0.517)


def triangle(x: Plane, y: Plane) -> Plane:
    """An equilateral triangle that stands on a side."""
    return np.asarray(_lines(x, y, 3).max(axis=0) - 0.778)


SILHOUETTES: dict[str, Callable[[Plane, Plane], Plane]] = {
    silhouette.__name__: silhouette
    for silhouette in (bar, crescent, cross, disc, ell, heart, ring, square, star, triangle)
}
"""Name of the class → its outline, in sorted order."""


def _either(first: Plane, second: Plane) -> Plane:
    return np.asarray(np.minimum(first, second))


def _both(first: Plane, second: Plane) -> Plane:
    return np.asarray(np.maximum(first, second))


def _radius(x: Plane, y: Plane) -> Plane:
    return np.asarray(np.sqrt(x * x + y * y))


def _box(x: Plane, y: Plane, half_width: float, half_height: float) -> Plane:
    return _both(np.abs(x) - half_width, np.abs(y) - half_height)


def _lines(x: Plane, y: Plane, count: int) -> Float[np.ndarray, "count N H W"]:
    """Distances along `count` evenly spread directions, the first of which points down."""
    angles = 2 * np.pi * np.arange(count, dtype=np.float32) / count
    return np.stack([np.sin(angle) * x + np.cos(angle) * y for angle in angles])
