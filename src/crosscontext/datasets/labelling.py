"""Class names of images → **labelling** → numbered classes, the same in all parts of a set."""

from collections.abc import Sequence

import numpy as np

from crosscontext.datasets.contract import Labels
from crosscontext.errors import DataError


def number_classes(parts: Sequence[Sequence[str] | None]) -> list[Labels | None]:
    """Number the classes of all parts together, in sorted order of their names.

    Args:
        parts: class name of each image of a part, or None for a part without classes.

    Returns:
        Labels of each part; None for those without, and for all where there are no two classes.
    """
    class_names = tuple(sorted({name for part in parts for name in part or ()}))
    number = {name: index for index, name in enumerate(class_names)}
    return [
        None
        if part is None or len(class_names) < 2
        else Labels(class_names, np.fromiter((number[name] for name in part), np.int64, len(part)))
        for part in parts
    ]


def all_or_none(classes: Sequence[str | None], names: Sequence[str], where: str) -> list[str] | None:
    """Make sure that each image of a part has a class, or none has.

    Args:
        classes: class name of each image, or None.
        names: of the images.
        where: they were found, for the message.

    Raises:
        DataError: some have, and others have not.
    """
    known = [name for name in classes if name is not None]
    if known and len(known) < len(classes):
        first = names[list(classes).index(None)]
        raise DataError(
            f"{len(classes) - len(known)} of {len(classes)} images of {where} have no class, the first is "
            f"{first!r}, the others have one. Give each its class, or none."
        )
    return known or None
