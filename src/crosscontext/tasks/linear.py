"""The linear task: logistic regression on frozen features, its penalty chosen within the training images."""

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from crosscontext.confidence import Mean
from crosscontext.features import Features
from crosscontext.probe import choose_penalty
from crosscontext.shapes import Int64
from crosscontext.stratified import hold_out
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
        held_out = hold_out(classes, self.held_out, seed)
        chosen = choose_penalty(
            train.values, classes, int(classes.max()) + 1, held_out, self.penalties, _accuracy
        )
        right = torch.eq(chosen.predict(test.values), test.classes)
        yield Measurement("top1", Mean(right), {"penalty": chosen.penalty, "held_out_top1": chosen.score})


def _accuracy(predicted: Int64[Tensor, " N"], classes: Int64[Tensor, " N"]) -> float:
    return float(torch.eq(predicted, classes).double().mean())
