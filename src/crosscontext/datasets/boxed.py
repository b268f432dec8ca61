"""Image files with boxes in memory: parsed annotation → **boxed** → images and boxes.

What an annotation may hold is decided here, once for all formats.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from crosscontext.datasets.contract import BoxDataset, Boxes
from crosscontext.datasets.files import ImageFiles
from crosscontext.errors import DataError
from crosscontext.shapes import Bool, Float64

INSIDE_SHARE = 0.5
"""Share of its area that a box must have inside the image; boxes at the edge of photographs often reach a
little beyond it, and boxes of another image are mostly outside."""

Side = Annotated[float, Field(ge=1, le=2**20)]
"""Width or height of an image, in pixels."""

_NAMED_AT_MOST = 3


class BoxedFiles(ImageFiles, BoxDataset):
    """Image files, each decoded when it is asked for, and their boxes.

    Args:
        root: folder of the files.
        names: of the files, below the folder.
        boxes: of each file.
        class_names: what the classes of the boxes are indices into.
        left_out: name of an image → what is wrong with each of its boxes that were left out.

    Raises:
        DataError: there is no image, or a file is missing.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        boxes: Sequence[Boxes],
        class_names: tuple[str, ...],
        left_out: Mapping[str, Sequence[str]],
    ) -> None:
        if not names:
            raise DataError(f"The annotation of {root} lists no image. Give one that does, or leave it out.")
        if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
            raise DataError(
                f"The annotation of {root} names {outside[0]!r}, which does not lie below that folder. Move "
                "the file there, or take it out of the annotation."
            )
        missing = [name for name in names if not is_file(root / name)]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(names)} annotated images are not in {root}: "
                f"{', '.join(missing[:_NAMED_AT_MOST])}. Add the files, or take them out of the annotation."
            )
        super().__init__(root, names)
        self._boxes, self._class_names, self.left_out = boxes, class_names, left_out

    @property
    def class_names(self) -> tuple[str, ...]:
        """What classes are indices into."""
        return self._class_names

    def boxes(self, index: int) -> Boxes:
        """Look up the boxes of one image."""
        return self._boxes[index]


def is_file(path: Path) -> bool:
    """Tell whether there is such a file; no file has a name that the system refuses."""
    try:
        return path.is_file()
    except OSError:
        return False


def inside(
    corners: Float64[np.ndarray, "M 4"], width: float, height: float
) -> tuple[Float64[np.ndarray, "M 4"], Bool[np.ndarray, " M"], list[str]]:
    """Clip boxes to their image, and find those that are none.

    Args:
        corners: left, top, right and bottom edge, in pixels.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        The clipped boxes, which of them are kept, and what is wrong with each of the others.
    """
    clipped = np.clip(corners, 0, [width, height, width, height])
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite area lies outside
        sides, clipped_sides = corners[:, 2:] - corners[:, :2], clipped[:, 2:] - clipped[:, :2]
        has_area = (sides > 0).all(axis=1)  # also false for what is no number
        is_inside = clipped_sides.prod(axis=1) >= INSIDE_SHARE * sides.prod(axis=1)
    kept = has_area & is_inside
    causes = [
        f"box {edges.tolist()} "
        + (f"lies outside of {width:g} × {height:g} pixels" if area else "has no area")
        for edges, area in zip(corners[~kept], has_area[~kept], strict=True)
    ]
    return clipped, kept, causes
