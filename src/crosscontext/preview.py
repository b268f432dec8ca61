"""A picture of a few images with their views, to look at before the machine spends hours on them.

dataset + views → **preview** → one image file
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image, ImageDraw, ImageOps
from pydantic import Field
from torch import Tensor

from crosscontext.datasets import Dataset, DatasetSettings
from crosscontext.randomness import permutation
from crosscontext.settings import Settings
from crosscontext.shapes import Float
from crosscontext.views import IMAGENET_MEAN, IMAGENET_STD, ViewsSettings, draw_view, resolve

_CELL = 96  # smallest side of a cell of the contact sheet, in pixels
SHOWN_COPIES = {"weak": 1, "strong": 2, "local": 2}
"""Of each view in a picture or on a page: two, so that one sees how they differ, as weak ones hardly do."""


class PreviewSettings(Settings):
    """What to draw."""

    data: DatasetSettings
    """Images: a folder, or the name of a data set, e.g. cifar10 or shapes."""

    out: Path = Path("views.png")
    """Picture to write."""

    num_images: Annotated[int, Field(ge=1, le=100)] = 8
    """Images to show, one a row, in [1, 100]."""

    image_size: Annotated[int, Field(ge=8)] = 224
    """Side of the weak and strong views, in pixels, at least 8."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the choice of images and of all random draws, in [0, 2³²)."""

    views: ViewsSettings = ViewsSettings()
    """How views are cut out and retouched."""


def preview(settings: PreviewSettings) -> Path:
    """Draw images and their views.

    Returns:
        The file written.

    Raises:
        DataError: the data set is missing or empty.
    """
    dataset = settings.data.open().train
    views_picture(
        dataset,
        settings.views,
        SHOWN_COPIES,
        settings.image_size,
        settings.num_images,
        settings.seed,
        settings.out,
    )
    return settings.out


def views_picture(
    dataset: Dataset,
    settings: ViewsSettings,
    counts: dict[str, int],
    image_size: int,
    num_images: int,
    seed: int,
    path: Path,
) -> None:
    """Write a contact sheet: one row an image, the original on the left, then its views of epoch 0.

    Args:
        dataset: of the images; those that epoch 0 shows first are taken.
        settings: of the views.
        counts: copies of each named view.
        image_size: side of the weak and strong views, in pixels.
        num_images: rows; no more than the data set has are drawn.
        seed: of the run whose views these are.
        path: of the PNG file.
    """
    settings = resolve(settings, image_size)
    views = copies(counts)
    images = permutation(seed, 0, len(dataset.names))[:num_images].tolist()
    zoom = max(1, math.ceil(_CELL / image_size))  # small views are shown with their pixels enlarged
    cell, gap, head = zoom * image_size, 8, 20
    sheet = Image.new(
        "RGB", ((cell + gap) * (1 + len(views)) + gap, head + (cell + gap) * len(images)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for column, heading in enumerate(["image", *(f"{name} {copy + 1}" for name, copy in views)]):
        pen.text((gap + column * (cell + gap), 4), heading, fill="black")
    for row, index in enumerate(images):
        pictures = [ImageOps.contain(dataset.image(index), (cell, cell))]
        for view in views:
            drawn = as_picture(draw_view(dataset, index, settings, image_size, view, (seed, 0)))
            pictures.append(drawn.resize((drawn.width * zoom, drawn.height * zoom), Image.Resampling.NEAREST))
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (gap + column * (cell + gap), head + row * (cell + gap)))
    sheet.save(path, format="PNG")


def copies(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """List the views: the name of each, and the number of the copy."""
    return tuple((name, copy) for name, count in counts.items() for copy in range(count))


def as_picture(
    view: Float[Tensor, "3 S S"],
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Image.Image:
    """Undo the normalisation of a view, so that it can be looked at.

    Args:
        view: as a network takes it.
        mean: that was subtracted from its colours in [0, 1].
        std: that they were divided by then.
    """
    pixels = view.permute(1, 2, 0) * torch.tensor(std) + torch.tensor(mean)
    return Image.fromarray(pixels.mul(255).round().to(torch.uint8).numpy())
