"""The data sets as one union: settings → **datasets** → named images, with labels, boxes or masks.

To add one: a file with a settings class that has a `name` of its own and `open() -> Splits`, and its name in
`DatasetSettings`.
"""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from crosscontext.datasets import coco, idx, lists, parquet, tar, voc
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
from crosscontext.datasets.idx import IdxSettings
from crosscontext.datasets.lists import ListSettings
from crosscontext.datasets.masks import MasksSettings, is_mask_folder
from crosscontext.datasets.named import KNOWN_NAMES, NamedSettings
from crosscontext.datasets.parquet import ParquetSettings
from crosscontext.datasets.shapes import ShapesSettings
from crosscontext.datasets.sources import is_url, parts_in
from crosscontext.datasets.tar import TarSettings
from crosscontext.datasets.voc import VocSettings
from crosscontext.settings import absolute

__all__ = [
    "Annotation",
    "BoxDataset",
    "Boxes",
    "CocoSettings",
    "Dataset",
    "DatasetSettings",
    "FolderSettings",
    "IdxSettings",
    "Labels",
    "ListSettings",
    "MaskDataset",
    "MasksSettings",
    "NamedSettings",
    "ParquetSettings",
    "ShapesSettings",
    "Splits",
    "TarSettings",
    "VocSettings",
    "from_text",
    "known_names",
]


def from_text(value: object) -> object:
    """Spell out the short form of a data set: ``shapes``, a known name such as ``cifar10``, a path or a URL.

    A folder that bears one of these names is written ``./shapes``. What is in a folder is told by its layout:
    that of Pascal VOC, of COCO, of MNIST, images with masks, tar or parquet files, or else image files. A
    file, also with wildcards, is told by its ending: tar, parquet, or a list of images.

    Args:
        value: text or path; anything else is returned as it is.

    Returns:
        What the settings of that member are validated from.

    Raises:
        ValueError: the text is empty, no folder but nearly one of the names, no path that can be, or a URL of
            something else than tar or parquet files.
    """
    if not isinstance(value, str | Path):
        return value
    if value == "":
        raise ValueError(
            f"empty data set; expected the path of an image folder or one of {', '.join(known_names())}"
        )
    if value == "shapes":
        return {"name": "shapes"}
    if value in KNOWN_NAMES:
        return {"name": "torchvision", "dataset": value}
    meant = difflib.get_close_matches(str(value).lower(), known_names(), n=1, cutoff=0.8)
    if meant and str(value) == Path(value).name and not Path(value).exists():
        raise ValueError(f"no folder {str(value)!r} exists; did you mean the data set {meant[0]!r}?")
    if is_url(str(value)):
        return _shards(str(value))
    path = absolute(Path(value))
    try:
        return _in_folder(path, value) if path.is_dir() or not path.suffix else _of_file(path, value)
    except OSError:  # such as a name that is too long, which opening complains of
        return {"name": "folder", "path": value}


def _in_folder(folder: Path, value: str | Path) -> dict[str, object]:
    for name, recognises in {"voc": voc.recognises, "idx": idx.recognises}.items():
        if recognises(folder):
            return {"name": name, "path": value}
    if (parts := coco.recognised(folder)) is not None:
        return {"name": "coco", **parts}
    for name, ending in _ENDINGS_OF_SHARDS.items():
        if (shards := parts_in(folder, ending)) is not None:
            return {"name": name, **shards}
    return {"name": "masks" if is_mask_folder(folder) else "folder", "path": value}


def _of_file(path: Path, value: str | Path) -> dict[str, object]:
    if path.suffix in _ENDINGS_OF_SHARDS.values():
        return _shards(str(value))
    return {"name": "list" if path.suffix in lists.ENDINGS else "folder", "path": value}


def _shards(location: str) -> dict[str, object]:
    for name, ending in _ENDINGS_OF_SHARDS.items():
        if location.endswith(ending):
            return {"name": name, "shards": [location]}
    raise ValueError(
        f"{location!r} ends in none of {', '.join(_ENDINGS_OF_SHARDS.values())}. Give the URL of such files."
    )


DatasetSettings = Annotated[
    FolderSettings
    | NamedSettings
    | ShapesSettings
    | VocSettings
    | CocoSettings
    | MasksSettings
    | TarSettings
    | ParquetSettings
    | ListSettings
    | IdxSettings,
    Field(discriminator="name"),
    BeforeValidator(from_text),
]
"""Settings of any data set; `open()` gives its `Splits`."""


_ENDINGS_OF_SHARDS = {"tar": tar.ENDING, "parquet": parquet.ENDING}


def known_names() -> list[str]:
    """Names that stand for a data set by themselves."""
    return ["shapes", *KNOWN_NAMES]
