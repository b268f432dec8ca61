"""The linear task: logistic regression on frozen features, its penalty chosen within the training images."""

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from crosscontext.confidence import Mean
from crosscontext.errors import DataError
from crosscontext.features import Features
from crosscontext.probe import choose_penalty
from crosscontext.shapes import Bool, Int64
from crosscontext.tasks.contract import FeatureTask, Measurement


class LinearSettings(FeatureTask):
    """Multinomial logistic regression on standardised features."""

    name: Literal["linear"] = "linear"

    penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0), min_length=1
    )
    """Candidates for the weight of the L2 penalty beside the mean loss: 1 / (C · images) in the terms of
    scikit-learn."""

    held_out: float = Field(0.2, gt=0, lt=1)
    """Share of the training images of each class that chooses the penalty, in (0, 1)."""

    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:
        """Choose the penalty on held-out training images, fit on all of them, read the test images."""
        classes = train.classes
        assert classes is not None
        assert test.classes is not None
        held_out = stratified(classes, self.held_out, seed)
        chosen = choose_penalty(
            train.values, classes, int(classes.max()) + 1, held_out, self.penalties, _accuracy
        )
        right = torch.eq(chosen.predict(test.values), test.classes)
        yield Measurement("top1", Mean(right), {"penalty": chosen.penalty, "held_out_top1": chosen.score})


def stratified(classes: Int64[Tensor, " N"], share: float, seed: int) -> Bool[Tensor, " N"]:
    """Pick a share of the images of each class at random, at least one of those with two or more.

    Raises:
        DataError: no class has two images.
    """
    generator = np.random.default_rng(seed)
    picked = torch.zeros(len(classes), dtype=torch.bool)
    for label in torch.unique(classes):
        members = torch.nonzero(classes == label).flatten()
        count = min(max(1, round(len(members) * share)), len(members) - 1)
        picked[members[torch.from_numpy(generator.permutation(len(members))[:count])]] = True
    if not picked.any():
        raise DataError(
            f"Each of the {len(classes)} training images has a class of its own; the linear task needs two "
            "of a class to choose its penalty. Give more labelled images."
        )
    return picked


def _accuracy(predicted: Int64[Tensor, " N"], classes: Int64[Tensor, " N"]) -> float:
    return float(torch.eq(predicted, classes).double().mean())
