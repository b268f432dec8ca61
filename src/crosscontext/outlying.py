"""An index → **outlying** → the images that resemble the others least."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from crosscontext.errors import DataError
from crosscontext.gallery import Section, Tile, write_gallery
from crosscontext.index_settings import IndexSettings
from crosscontext.settings import Settings
from crosscontext.vector_search import require_usearch


class OutliersSettings(IndexSettings):
    """Where outliers are looked for, and what makes one."""

    k: int = Field(10, ge=1)
    """An image is judged by its k-th most similar other image. A group of fewer than k + 1 images that
    resemble only each other is found too."""

    top: int = Field(20, ge=1)
    """Images to show."""

    approximate: bool = False
    """Search a graph of neighbours, which is much faster among millions of images and misses a few; its first
    use builds and keeps it. Needs usearch."""


class Outlier(Settings):
    """One image, and how far it is from the others."""

    path: str
    """Below the root of the index."""

    distance: float
    """1 − cosine to the k-th most similar other image, in [0, 2]."""

    nearest: str
    """Path of the most similar other image."""

    similarity: float
    """Cosine to that one."""


class Outliers(Settings):
    """What was found."""

    root: Path
    """Folder where the paths begin."""

    k: int
    """Of the neighbour that counts; smaller than asked for where there are too few images."""

    median: float
    """Distance of an ordinary image: the median over all."""

    outliers: tuple[Outlier, ...]
    """The most distant one first."""

    missing: tuple[str, ...]
    """Those that are no longer there: `embed` would drop them."""


def outliers(settings: OutliersSettings, notify: Callable[[str], None] = lambda _: None) -> Outliers:
    """List the images of an index that are farthest from the others.

    Source: the distance to the k-th nearest neighbour (Ramaswamy et al., SIGMOD 2000), by cosine.

    Args:
        settings: see there.
        notify: is told in one line each what is being done.

    Raises:
        DataError: there is a single image.
        ImageIndexError: there is no index, or it is damaged.
        SettingsError: usearch is needed and not installed.
        RunFolderError: the page cannot be written.
    """
    if settings.approximate:
        require_usearch()
    index = settings.open()
    size = len(index.images)
    if size == 1:
        raise DataError(
            f"The index {settings.index} holds {index.images[0].path} alone, and an outlier needs others "
            "that it differs from. Add images to the folder and embed it again."
        )
    k = min(settings.k, size - 1)
    notify(f"comparing {size} images with each other")
    neighbours = index.nearest(index.vectors, k, np.arange(size), settings.approximate)
    similarity = neighbours.similarity.clamp_min(-1)  # where a graph finds too few
    distances = 1 - similarity[:, -1]
    worst = distances.sort(descending=True, stable=True).indices[: settings.top].tolist()
    found = tuple(
        Outlier(
            path=index.images[row].path,
            distance=float(distances[row]),
            nearest=index.images[int(neighbours.rows[row, 0])].path,
            similarity=float(similarity[row, 0]),
        )
        for row in worst
    )
    result = Outliers(
        root=index.card.root,
        k=k,
        median=float(torch.median(distances)),
        outliers=found,
        missing=tuple(index.missing(outlier.path for outlier in found)),
    )
    if settings.gallery is not None:
        write_gallery(settings.gallery, "Outliers", [explanation(result)], [_section(result)])
    return result


def explanation(result: Outliers) -> str:
    """Say in a sentence or two what the distance is."""
    return (
        f"Distance: 1 − cosine to the most similar other image number {result.k}. "
        f"The median over all images is {result.median:.3f}."
    )


def _section(result: Outliers) -> Section:
    tiles = (
        Tile(
            result.root / found.path,
            found.path,
            f"distance {found.distance:.3f}; nearest: {found.nearest}",
            "",
        )
        for found in result.outliers
    )
    return Section("The most distant first", "", tuple(tiles))
