"""The data sets as one union: settings → **datasets** → named images, with labels, boxes or masks.

To add one: a file with a settings class that has a `name` of its own and `open() -> Splits`, and its name in
`DatasetSettings`.
"""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.datasets import coco, voc
from crosscontext.datasets.coco import CocoSettings
from crosscontext.datasets.contract import (
    Annotation,
    BoxDataset,
    Boxes,
    Dataset,
    Labels,
    MaskDataset,
    Splits,
)
from crosscontext.datasets.folder import FolderSettings
from crosscontext.datasets.masks import MasksSettings, is_mask_folder
from crosscontext.datasets.named import KNOWN_NAMES, NamedSettings
from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.datasets.voc import VocSettings

__all__ = [
    "Annotation",
    "BoxDataset",
    "Boxes",
    "CocoSettings",
    "Dataset",
    "DatasetSettings",
    "FolderSettings",
    "Labels",
    "MaskDataset",
    "MasksSettings",
    "NamedSettings",
    "ShapesSettings",
    "Splits",
    "VocSettings",
    "from_text",
]


def from_text(value: object) -> object:
    """Spell out the short form of a data set: ``shapes``, a known name such as ``cifar10``, or a path.

    A folder that bears one of these names is written ``./shapes``. What is in a folder is told by its layout:
    that of Pascal VOC, of COCO, images with masks, or else image files.

    Args:
        value: text or path; anything else is returned as it is.

    Returns:
        What the settings of that member are validated from.

    Raises:
        ValueError: the text is empty, or no folder but nearly one of the names.
    """
    if not isinstance(value, str | Path):
        return value
    if value == "":
        raise ValueError(
            f"empty data set; expected the path of an image folder or one of {', '.join(_names())}"
        )
    if value == "shapes":
        return {"name": "shapes"}
    if value in KNOWN_NAMES:
        return {"name": "torchvision", "dataset": value}
    meant = difflib.get_close_matches(str(value).lower(), _names(), n=1, cutoff=0.8)
    if meant and str(value) == Path(value).name and not Path(value).exists():
        raise ValueError(f"no folder {str(value)!r} exists; did you mean the data set {meant[0]!r}?")
    folder = Path(value).expanduser()
    if voc.recognises(folder):
        return {"name": "voc", "path": value}
    if (parts := coco.recognised(folder)) is not None:
        return {"name": "coco", **parts}
    return {"name": "masks" if is_mask_folder(folder) else "folder", "path": value}


DatasetSettings = Annotated[
    FolderSettings | NamedSettings | ShapesSettings | VocSettings | CocoSettings | MasksSettings,
    Field(discriminator="name"),
    BeforeValidator(from_text),
]
"""Settings of any data set; `open()` gives its `Splits`."""


def _names() -> list[str]:
    return ["shapes", *KNOWN_NAMES]
