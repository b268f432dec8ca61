"""Image files that a list names: a line ``PATH`` or ``PATH<tab>CLASS`` an image → **lists** → images."""

from pathlib import Path
from typing import Literal

from crosscontext.datasets.contract import Splits
from crosscontext.datasets.files import ImageFiles
from crosscontext.datasets.labelling import all_or_none, number_classes
from crosscontext.errors import DataError
from crosscontext.settings import AbsolutePath, Settings

ENDINGS = (".list", ".lst", ".tsv", ".txt")
"""Of the files that are taken for lists."""


class ListSettings(Settings):
    """Image files that a text file lists, one path a line, perhaps with a class after a tab."""

    name: Literal["list"] = "list"
    """Image files that a text file lists."""

    path: AbsolutePath
    """The list: UTF-8, one path a line, relative to `root`; where a tab follows, what stands behind it is
    the class. Empty lines do not count."""

    test_path: AbsolutePath | None = None
    """List of the test images; without one, the set has no test part."""

    root: AbsolutePath | None = None
    """Folder where the paths begin; by default that of the list."""

    def open(self) -> Splits:
        """Read the lists; no image is looked for yet.

        Raises:
            DataError: a list is missing, empty or no text, names an image twice, gives only some of them a
                class, or an image is in both lists.
        """
        lists = [self.path] if self.test_path is None else [self.path, self.test_path]
        read = [_read(path) for path in lists]
        roots = [self.root or path.parent for path in lists]
        classes = [
            all_or_none(list(part.values()), list(part), str(path))
            for part, path in zip(read, lists, strict=True)
        ]
        train, *tests = (
            ImageFiles(root, list(part), labels)
            for root, part, labels in zip(roots, read, number_classes(classes), strict=True)
        )
        if tests and (
            both := {root / name for name in train.names for root in roots[:1]}
            & {roots[1] / name for name in tests[0].names}
        ):
            raise DataError(
                f"{len(both)} images are in {self.path} and in {self.test_path}, e.g. {str(min(both))!r}. "
                "Take them out of one: no image may be judged that was learned from."
            )
        return Splits(train, tests[0] if tests else None)


def _read(path: Path) -> dict[str, str | None]:
    """Read a list: path → class."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"cannot read the list {str(path)!r}: {cause}. Give a text file.") from error
    found: dict[str, str | None] = {}
    for number, line in enumerate(lines, start=1):
        name, has_class, class_name = line.rstrip("\r").partition("\t")
        if not line.strip():
            continue
        if name in found or not name or "\0" in name or (has_class and not class_name.strip()):
            raise DataError(
                f"line {number} of {str(path)!r} is {line[:80]!r}; expected a path that no other line names "
                "and, if a tab follows, a class. Mend that line."
            )
        found[name] = class_name.strip() if has_class else None
    if not found:
        raise DataError(f"the list {str(path)!r} is empty. Write one path a line.")
    return found
