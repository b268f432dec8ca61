"""Image files below a directory, and labels where its sub-folders are classes: path → **folder** → images."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from crosscontext.datasets.contract import Splits
from crosscontext.datasets.decoding import EXTENSIONS
from crosscontext.datasets.files import ImageFiles
from crosscontext.datasets.labelling import number_classes
from crosscontext.errors import DataError
from crosscontext.settings import AbsolutePath, Settings

_TRAIN = "train"
_TESTS = ("test", "val", "valid", "validation")  # the first one that is there is the test part


class FolderSettings(Settings):
    """Image files below a folder, at any depth, of mixed sizes and formats."""

    name: Literal["folder"] = "folder"
    """Image files below a folder."""

    path: AbsolutePath
    """The folder. Its sub-folders `train` and `test` (or `val`) are the parts of the set if nothing else
    holds images. The sub-folders of the folder, or of the parts, are the classes if there are at least two
    and each image lies in one; else there are no labels."""

    def open(self) -> Splits:
        """List the images in an order that does not depend on the file system; none is read yet.

        Raises:
            DataError: the folder is missing, is a file, cannot be listed, holds no image, or has `train` and
                `test` among other folders.
        """
        names = _image_names(self.path)
        part_names = _part_names(self.path, names)
        if part_names is None:
            return Splits(_datasets(self.path, [names], depth=0)[0], None)
        parts = [[name for name in names if name.startswith(f"{part}/")] for part in part_names]
        train, *tests = _datasets(self.path, parts, depth=1)
        return Splits(train, tests[0] if tests else None)


def whole_folder(root: Path) -> ImageFiles:
    """List all images below a folder as one set, whatever its sub-folders mean; none is read yet.

    Raises:
        DataError: the folder is missing, is a file, cannot be listed, or holds no image.
    """
    return ImageFiles(root, _image_names(root))


def _image_names(root: Path) -> list[str]:
    others: Counter[str] = Counter()
    names = []
    try:
        if not root.is_dir():
            fault = "is a file" if root.exists() else "does not exist"
            raise DataError(f"image folder {str(root)!r} {fault}. Give the path of an existing folder.")
        for name in _visible_files(root):
            ending = Path(name).suffix.lower()
            if ending in EXTENSIONS:
                names.append(name)
            else:
                others[ending or "none"] += 1
    except OSError as cause:
        raise DataError(
            f"cannot list the image folder {str(root)!r}: {cause}. Check its permissions."
        ) from cause
    if not names:
        seen = ", ".join(f"{ending} ({count})" for ending, count in others.most_common(5))
        files = f"{others.total()} files but no image; endings seen: {seen}" if others else "no files at all"
        raise DataError(
            f"image folder {str(root)!r} holds {files}. Known endings: {' '.join(sorted(EXTENSIONS))}. "
            "Convert the images to one of these formats, or give another folder."
        )
    return sorted(names)


def _visible_files(root: Path) -> Iterator[str]:
    """Walk over all files but hidden ones; yield their paths below root, with slashes, in any order.

    Links are followed, but each real folder is visited once, so that loops end and no image counts twice.
    Linked folders come last: an image with a real path below root is known by that.
    """
    visited = set()
    folders, linked_folders = [""], list[str]()
    while folders or linked_folders:
        folder = (folders or linked_folders).pop()
        status = (root / folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            continue
        visited.add((status.st_dev, status.st_ino))
        found, linked = list[str](), list[str]()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_symlink() and Path(entry.path).is_dir():
                    linked.append(f"{folder}{entry.name}/")
                elif entry.is_dir(follow_symlinks=False):
                    found.append(f"{folder}{entry.name}/")
                else:
                    yield folder + entry.name
        folders += sorted(found)
        linked_folders += sorted(linked)


def _part_names(root: Path, names: Sequence[str]) -> list[str] | None:
    """Find the folders of the train and the test part; None if the folder is not divided into parts."""
    tops = {name.partition("/")[0] for name in names}
    parts = {top.lower(): top for top in sorted(tops) if top.lower() in (_TRAIN, *_TESTS)}
    tests = [parts[test] for test in _TESTS if test in parts]
    if _TRAIN not in parts:
        return None
    if len(parts) == len(tops):
        return [parts[_TRAIN], *tests[:1]]
    if tests:
        others = sorted(tops - set(parts.values()))
        raise DataError(
            f"image folder {str(root)!r} holds {parts[_TRAIN]!r} and {tests[0]!r}, but also images in "
            f"{others[:3]}: are these parts or classes? Move the others away, or give one of the sub-folders."
        )
    return None


def _datasets(root: Path, parts: Sequence[Sequence[str]], *, depth: int) -> list[ImageFiles]:
    """Label the images of each part by their folder at `depth`; all parts share the same classes."""
    classes = [
        [_folder(name, depth) for name in part] if all(name.count("/") > depth for name in part) else None
        for part in parts
    ]
    return [
        ImageFiles(root, part, labels) for part, labels in zip(parts, number_classes(classes), strict=True)
    ]


def _folder(name: str, depth: int) -> str:
    return name.split("/", depth + 1)[depth]
