"""A picture of a few images with their views, to look at before the machine spends hours on them.

dataset + views → **preview** → one image file
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from crosscontext.datasets import DatasetSettings
from crosscontext.settings import Settings
from crosscontext.views import ViewsSettings, views_picture

_COUNTS = {"weak": 1, "strong": 2, "local": 2}


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
        _COUNTS,
        settings.image_size,
        settings.num_images,
        settings.seed,
        settings.out,
    )
    return settings.out
