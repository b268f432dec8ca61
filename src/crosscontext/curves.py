"""How a run went: metrics.jsonl → **curves** → what is drawn against images and against seconds."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

_MOST_POINTS = 50
_SPEED = "time/images_per_second"

Scalar = Literal["val/knn_top1", "train/loss"]
SCALARS: tuple[Scalar, ...] = ("val/knn_top1", "train/loss")
"""What there are curves of; the first where training images have classes."""


class Curve(BaseModel):
    """One scalar of one run, or its mean over several runs; all of one length."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    images: tuple[int, ...]
    """Seen so far."""

    seconds: tuple[float, ...]
    """Of training so far, without measurements and checkpoints."""

    values: tuple[float, ...]
    """Of the scalar."""


def curves_of(lines: Sequence[Mapping[str, int | float]]) -> dict[Scalar, Curve]:
    """Take the curves of a run out of its metrics; a scalar that was never measured has none.

    Args:
        lines: of metrics.jsonl, in their order. A resumed run is one run: seconds between sessions do not
            count.

    Returns:
        Curves of at most 50 points; a point of a longer one is the mean since the point before.
    """
    clock = _seconds(lines)
    found = {}
    for scalar in SCALARS:
        measured = [
            (line["images"], at, line[scalar])
            for line, at in zip(lines, clock, strict=True)
            if scalar in line
        ]
        if measured:
            parts = np.array_split(np.array(measured), min(len(measured), _MOST_POINTS))
            images, seconds = zip(*(part[-1, :2] for part in parts), strict=True)
            found[scalar] = Curve(
                images=tuple(int(count) for count in images),
                seconds=tuple(round(float(at), 2) for at in seconds),
                values=tuple(float(f"{part[:, 2].mean():.6g}") for part in parts),
            )
    return found


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Average runs that differ in their seed alone, point by point; points that one lacks are left out."""
    shared = set.intersection(*(set(curve.images) for curve in curves))
    images = tuple(sorted(shared))
    rows = [[curve.images.index(count) for count in images] for curve in curves]

    def mean(columns: Sequence[Sequence[float]]) -> tuple[float, ...]:
        picked = [[column[i] for i in row] for column, row in zip(columns, rows, strict=True)]
        return tuple(float(value) for value in np.mean(picked, axis=0))

    return Curve(
        images=images,
        seconds=mean([curve.seconds for curve in curves]),
        values=mean([curve.values for curve in curves]),
    )


def _seconds(lines: Sequence[Mapping[str, int | float]]) -> list[float]:
    """Seconds of training at each line: images over the speed at which they went by."""
    clock, passed, counted = [], 0.0, 0.0
    for line in lines:
        if _SPEED in line:
            passed += (line["images"] - counted) / line[_SPEED]
            counted = line["images"]
        clock.append(passed)
    return clock
