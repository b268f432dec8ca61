"""An index → **duplicates** → groups of images that are nearly the same. Nothing is ever deleted."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from crosscontext.copy_threshold import CopyThreshold, measure_threshold
from crosscontext.gallery import Section, Tile, write_gallery
from crosscontext.image_index import ImageIndex
from crosscontext.index_settings import ModelOfIndex
from crosscontext.settings import Settings
from crosscontext.shapes import Bool
from crosscontext.vector_search import at_least, cosines

_ROWS_AT_ONCE = 256
_ROUNDING = 1e-6  # by which equal vectors may differ from a cosine of 1


class DedupeSettings(ModelOfIndex):
    """Where duplicates are looked for, and what counts as one."""

    threshold: Annotated[float, Field(ge=-1, le=1)] | Literal["auto"] = "auto"
    """Cosine from which on two images count as duplicates. auto: the one that best tells mild copies of 200
    of the images (cropped, compressed, blurred, recoloured) from their nearest other images."""


class Duplicate(Settings):
    """One image of a group."""

    path: str
    """Below the root of the index."""

    similarity: float
    """Cosine to the first image of the group."""

    identical: bool
    """Whether the files of both have the same content."""


class Group(Settings):
    """Images that are nearly the same."""

    first: str
    """Path of the largest file; each other image is at least as similar to it as the threshold says."""

    others: tuple[Duplicate, ...]
    """The most similar one first."""


class Duplicates(Settings):
    """What was found."""

    root: Path
    """Folder where the paths begin."""

    threshold: float
    """What counted as a duplicate."""

    measured: CopyThreshold | None
    """How the threshold came about; None where it was given."""

    groups: tuple[Group, ...]
    """Those with the most similar images first."""

    missing: tuple[str, ...]
    """Images of the groups that are no longer there: `embed` would drop them."""


def dedupe(settings: DedupeSettings, notify: Callable[[str], None] = lambda _: None) -> Duplicates:
    """List groups of near-duplicates in an index; nothing is changed.

    From the largest file to the smallest, each image that is in no group yet gathers those that are similar
    enough to it and in no group yet. So all of a group but the first one could go. All pairs are compared,
    n² · D multiplications.

    Args:
        settings: see there.
        notify: is told in one line each what is being done.

    Raises:
        ImageIndexError: there is no index, it is damaged, of another model, or its images are gone where the
            threshold has to be measured.
        CheckpointError: there is no encoder to measure the threshold with.
        DataError: none of the images that the threshold is measured on can be read.
        RunFolderError: the page cannot be written.
    """
    index = settings.open()
    measured = measure_threshold(index, settings, notify) if settings.threshold == "auto" else None
    threshold = settings.threshold if measured is None else measured.similarity
    assert threshold != "auto"
    groups = [_group(index, rows) for rows in _gather(index, threshold)]
    groups.sort(key=lambda group: (-group.others[0].similarity, group.first))
    result = Duplicates(
        root=index.card.root,
        threshold=threshold,
        measured=measured,
        groups=tuple(groups),
        missing=tuple(
            index.missing(
                path for group in groups for path in (group.first, *(other.path for other in group.others))
            )
        ),
    )
    if settings.gallery is not None:
        write_gallery(settings.gallery, "Near-duplicates", [explanation(result)], _sections(result))
    return result


def explanation(result: Duplicates) -> str:
    """Say in a sentence or two what counted as a duplicate, and why."""
    text = f"Images whose similarity (cosine) is at least {result.threshold:.4f} count as duplicates."
    if (measured := result.measured) is None:
        return text
    return (
        f"{text} Measured on {measured.images} images: {measured.found:.0%} of their mild copies are so "
        f"similar to the original, and {measured.mistaken:.0%} of the images have another image so similar."
    )


def _gather(index: ImageIndex, threshold: float) -> Iterator[list[int]]:
    """Find the groups, as rows: in each the largest file first."""
    order = sorted(
        range(len(index.images)), key=lambda row: (-index.images[row].size, index.images[row].path)
    )
    taken = np.zeros(len(order), bool)
    waiting = iter(order)
    while block := _first(waiting, taken):
        near = at_least(index.vectors[block], index.vectors, threshold - _ROUNDING)
        for row, similar in zip(block, near, strict=True):
            if taken[row]:
                continue
            taken[row] = True
            others = np.flatnonzero(similar & ~taken).tolist()
            taken[others] = True
            if others:
                yield [row, *others]


def _first(waiting: Iterator[int], taken: Bool[np.ndarray, " N"]) -> list[int]:
    """Take the next rows that are in no group yet."""
    found: list[int] = []
    for row in waiting:
        if not taken[row]:
            found.append(row)
        if len(found) == _ROWS_AT_ONCE:
            break
    return found


def _group(index: ImageIndex, rows: Sequence[int]) -> Group:
    first, *others = (index.images[row] for row in rows)
    similarities = cosines(index.vectors[list(rows[1:])], index.vectors[[rows[0]]]).tolist()
    duplicates = [
        Duplicate(path=image.path, similarity=similarity, identical=image.sha256 == first.sha256)
        for image, similarity in zip(others, similarities, strict=True)
    ]
    duplicates.sort(key=lambda other: (-other.similarity, other.path))
    return Group(first=first.path, others=tuple(duplicates))


def _sections(result: Duplicates) -> list[Section]:
    return [
        Section(
            f"Group {number}: {1 + len(group.others)} images",
            "",
            (
                Tile(result.root / group.first, group.first, "", "largest file"),
                *(
                    Tile(
                        result.root / other.path,
                        other.path,
                        "the same file content" if other.identical else f"similarity {other.similarity:.3f}",
                        "",
                    )
                    for other in group.others
                ),
            ),
        )
        for number, group in enumerate(result.groups, 1)
    ]
