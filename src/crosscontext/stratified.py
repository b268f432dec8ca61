"""Labelled images divided class by class, so that a part has its share of each.

classes, seed → **stratified** → which images train, choose and judge
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from crosscontext.errors import DataError
from crosscontext.shapes import Bool, Int64


def draw(classes: Int64[Tensor, " N"], count_of: Callable[[int], int], seed: int) -> Bool[Tensor, " N"]:
    """Pick some images of each class at random.

    With the same seed, those of a smaller draw are among those of a larger one.

    Args:
        classes: of the images.
        count_of: how many images of a class are picked, by how many it has.
        seed: of the choice, in [0, 2³²).
    """
    generator = np.random.default_rng(seed)
    picked = torch.zeros(len(classes), dtype=torch.bool)
    for label in torch.unique(classes):
        members = torch.nonzero(classes == label).flatten()
        order = torch.from_numpy(generator.permutation(len(members)))
        picked[members[order[: count_of(len(members))]]] = True
    return picked


def hold_out(classes: Int64[Tensor, " N"], share: float, seed: int) -> Bool[Tensor, " N"]:
    """Pick a share of the images of each class at random, at least one of those with two or more.

    Args:
        classes: of the images.
        share: in (0, 1); one image of a class always stays.
        seed: of the choice, in [0, 2³²).

    Raises:
        DataError: no class has two images.
    """
    picked = draw(classes, lambda size: min(max(1, round(size * share)), size - 1), seed)
    if not picked.any():
        raise DataError(
            f"Each of the {len(classes)} training images has a class of its own, so that none can be held "
            "out to choose settings with. Give two or more images of a class."
        )
    return picked


def folds(classes: Int64[Tensor, " N"], num_folds: int, seed: int) -> Int64[Tensor, " N"]:
    """Deal the images of each class out to folds of equal size, but for one image.

    Returns:
        The fold of each image, in [0, num_folds).

    Raises:
        DataError: a class has fewer images than there are folds.
    """
    generator = np.random.default_rng(seed)
    fold_of = torch.empty(len(classes), dtype=torch.int64)
    for label in torch.unique(classes):
        members = torch.nonzero(classes == label).flatten()
        if len(members) < num_folds:
            raise DataError(
                f"A class has {len(members)} training images, too few for a cross-validation with "
                f"{num_folds} folds. Give more images of each class, or take fewer folds."
            )
        order = torch.from_numpy(generator.permutation(len(members)))
        fold_of[members[order]] = torch.arange(len(members)) % num_folds
    return fold_of
