"""Small pictures of red and blue rectangles, with their boxes in the format of Pascal VOC."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

COLOURS = {"blue": (20, 20, 230), "red": (230, 20, 20)}


class Thing(NamedTuple):
    """One rectangle: pixels from (left, top) up to, and without, (right, bottom)."""

    colour: str
    left: int
    top: int
    right: int
    bottom: int
    difficult: bool = False


def things(number: int, width: int, height: int) -> list[Thing]:
    """One to three rectangles in columns of their own, the same for the same number."""
    generator = np.random.default_rng(number)
    column = width // 3
    drawn = []
    for place in generator.permutation(3)[: 1 + number % 3]:
        left = int(place * column + generator.integers(0, column // 3))
        top = int(generator.integers(0, height // 2))
        side_across, side_down = generator.integers(
            [column // 2, height // 4], [2 * column // 3, height // 2]
        )
        colour = list(COLOURS)[generator.integers(2)]
        drawn.append(Thing(colour, left, top, left + int(side_across), top + int(side_down)))
    return drawn


def paint_things(path: Path, drawn: Sequence[Thing], width: int, height: int) -> None:
    """Write a picture of rectangles on grey noise."""
    noise = np.random.default_rng(len(drawn)).integers(90, 130, (height, width, 1), dtype=np.uint8)
    pixels = np.repeat(noise, 3, axis=2)
    for colour, left, top, right, bottom, _ in drawn:
        pixels[top:bottom, left:right] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def annotate(path: Path, drawn: Sequence[Thing], width: int, height: int) -> None:
    """Write an annotation file: pixels are counted from 1, and the last one belongs to the box."""
    objects = "".join(
        f"<object><name>{t.colour}</name><difficult>{int(t.difficult)}</difficult><bndbox>"
        f"<xmin>{t.left + 1}</xmin><ymin>{t.top + 1}</ymin><xmax>{t.right}</xmax><ymax>{t.bottom}</ymax>"
        "</bndbox></object>"
        for t in drawn
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<annotation>{size}{objects}</annotation>")


def draw_set(root: Path, *, width: int = 64, height: int = 64, **parts: int) -> Path:
    """Write a folder in the layout of Pascal VOC, e.g. with ``train=8, test=4`` images."""
    number = 0
    for part, size in parts.items():
        names = [f"{part}_{number + i:02}" for i in range(size)]
        for name in names:
            drawn = things(number, width, height)
            paint_things(root / "JPEGImages" / f"{name}.png", drawn, width, height)
            annotate(root / "Annotations" / f"{name}.xml", drawn, width, height)
            number += 1
        listing = root / "ImageSets" / "Main" / f"{part}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(names) + "\n")
    return root
