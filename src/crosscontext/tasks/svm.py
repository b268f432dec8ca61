"""The SVM task: a linear support vector machine for each class on frozen features, as on Pascal VOC 2007."""

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from crosscontext.features import Features
from crosscontext.probe import LinearClassifier, PrincipalAxes, fit_svm
from crosscontext.shapes import Bool, Float, Float64, Int64
from crosscontext.stratified import folds
from crosscontext.tasks.accuracy import accuracies
from crosscontext.tasks.contract import FeatureTask, Measurement


class SvmSettings(FeatureTask):
    """One-versus-rest linear SVMs on features of length 1, each with a cost chosen by cross-validation.

    Source: Goyal et al., arXiv 1905.01235, section 6.1, and the published code of their benchmark. There an
    image may have several classes, here it has one.
    """

    name: Literal["svm"] = "svm"

    costs: tuple[Annotated[float, Field(gt=0)], ...] = Field((0.01, 0.1, 1, 10, 100, 1000), min_length=1)
    """Candidates for the cost of each class: C in the terms of scikit-learn."""

    folds: int = Field(3, ge=2)
    """Parts of the training images; each judges the costs with which the others were fitted. Published: 3."""

    positive_weight: float = Field(2.0, gt=0)
    """Weight of an image of the class against one of all others; published: 2."""

    def measure(self, train: Features, test: Features, seed: int) -> Iterator[Measurement]:
        """Choose costs by average precision, fit on all training images, read the test images."""
        classes = train.classes
        assert classes is not None
        assert test.classes is not None
        values = F.normalize(train.values, dim=1)
        axes = PrincipalAxes.of(values)
        nothing = LinearClassifier.zeros(int(classes.max()) + 1, values.shape[1])
        fold_of = folds(classes, self.folds, seed)
        candidates = torch.tensor(sorted(self.costs))
        precisions = torch.zeros(len(candidates), len(nothing.bias), dtype=torch.float64)
        for fold in range(self.folds):
            judged = fold_of == fold
            svms = nothing
            for row, cost in enumerate(candidates):  # each fit starts from the one before
                costs = cost.expand(len(nothing.bias))
                svms = fit_svm(values[~judged], classes[~judged], axes, costs, self.positive_weight, svms)
                precisions[row] += average_precisions(svms.scores(values[judged]), classes[judged])
        best, chosen = (precisions / self.folds).max(dim=0)
        svms = fit_svm(values, classes, axes, candidates[chosen], self.positive_weight, nothing)
        scores = svms.scores(F.normalize(test.values, dim=1))
        details = {
            "costs": [float(cost) for cost in candidates[chosen]],
            "cross_validated_mAP": float(best.nanmean()),
        }
        yield from accuracies(scores, test.classes, details)
        yield Measurement("mAP", MeanAveragePrecision(scores, test.classes), details)


class MeanAveragePrecision(NamedTuple):
    """Mean over the classes of `average_precision`."""

    scores: Float[Tensor, "N V"]
    """Higher for images that more probably are of a class."""

    classes: Int64[Tensor, " N"]
    """The right ones."""

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.classes)

    def __call__(self, counts: Float64[Tensor, "R N"]) -> Float64[Tensor, " R"]:
        """Average over the classes that have an image among those counted."""
        drawn = counts.T.contiguous()
        by_class = [
            average_precision(self.scores[:, label], self.classes == label, drawn)
            for label in range(self.scores.shape[1])
        ]
        return torch.stack(by_class).nanmean(dim=0)


def average_precisions(scores: Float[Tensor, "N V"], classes: Int64[Tensor, " N"]) -> Float64[Tensor, " V"]:
    """Average precision of each class; not a number for a class without images."""
    once = torch.ones(len(classes), 1, dtype=torch.float64)
    by_class = [
        average_precision(scores[:, label], classes == label, once) for label in range(scores.shape[1])
    ]
    return torch.cat(by_class)


def average_precision(
    scores: Float[Tensor, " N"], positive: Bool[Tensor, " N"], drawn: Float64[Tensor, "N R"]
) -> Float64[Tensor, " R"]:
    """Mean, over the positive images, of the share of positive ones among all that score no less.

    It is scikit-learn's ``average_precision_score`` with the counts as weights, R times: no interpolation,
    and images with equal scores stand on one place.

    Args:
        scores: of the images.
        positive: which of them are of the class.
        drawn: how often each image is counted.

    Returns:
        In [0, 1]; not a number where no positive image is counted.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked, drawn = -scores[order], drawn[order]
    places = torch.nonzero(positive[order]).flatten()  # of the P positive images
    ends = torch.searchsorted(ranked, ranked[places], right=True)  # images that score no less
    positives_drawn = drawn[places]  # (P, R)
    found = positives_drawn.cumsum(dim=0)[torch.searchsorted(places, ends) - 1]
    seen = drawn.cumsum(dim=0)[ends - 1].clamp_min(1)
    return (positives_drawn * found / seen).sum(dim=0) / positives_drawn.sum(dim=0)
