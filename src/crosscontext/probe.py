"""Classifiers on frozen features: features and classes of training images → **probe** → classes of others.

Pure functions; `tasks/` says which of their settings are tried, and on which images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.features import Features
from crosscontext.shapes import Float, Int64

_SIMILARITIES_AT_ONCE = 2**24  # 64 MB of float32
_GRADIENT_TOLERANCE = 1e-4
_MAX_ITERATIONS = 500


def knn_top1(train: Features, test: Features, k: int = 20, temperature: float = 0.07) -> float:
    """Accuracy of the weighted k-nearest-neighbour vote, in [0, 1]: the monitor of a running training.

    Args:
        train: with classes.
        test: with classes.
        k: neighbours; more than there are training images means all of them.
        temperature: of the weights.
    """
    assert train.classes is not None
    assert test.classes is not None
    k = min(k, len(train.names))
    predicted = knn_classes(train.values, train.classes, test.values, (k,), temperature)[k]
    return float((predicted == test.classes).double().mean())


def knn_classes(
    train: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    test: Float[Tensor, "M D"],
    ks: Sequence[int],
    temperature: float,
) -> dict[int, Tensor]:
    """Let the k most similar training images vote for the class of each test image.

    Source: Wu et al., arXiv 1805.01978, section 3.4. The search is exact. For one test image::

        nearest = sorted(range(N), key=lambda i: -cosine(test, train[i]))[:k]
        votes[classes[i]] += exp(cosine(test, train[i]) / temperature)   for i in nearest
        predicted = argmax(votes)

    Args:
        train: features, of any length; cosines ignore it.
        classes: of the training images.
        test: features.
        ks: numbers of neighbours, each in [1, N].
        temperature: positive; small values let the nearest ones decide.

    Returns:
        Each k → predicted classes (M,).
    """
    train, test = F.normalize(train, dim=1), F.normalize(test, dim=1)
    num_classes = int(classes.max()) + 1
    sorted_ks = sorted(set(ks))
    predicted: dict[int, list[Tensor]] = {k: [] for k in sorted_ks}
    for queries in test.split(max(1, _SIMILARITIES_AT_ONCE // len(train))):
        similarity, neighbours = (queries @ train.T).topk(sorted_ks[-1], dim=1)
        weights = (
            (similarity - similarity[:, :1]) / temperature
        ).exp()  # relative to the nearest: no overflow
        votes = queries.new_zeros(len(queries), num_classes)
        for counted, k in zip([0, *sorted_ks], sorted_ks, strict=False):
            votes.scatter_add_(1, classes[neighbours[:, counted:k]], weights[:, counted:k])
            predicted[k].append(votes.argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in predicted.items()}


class Axes(NamedTuple):
    """Coordinates in which a logistic regression is fitted: standardised, then turned onto principal axes."""

    mean: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    """Standard deviations; 1 where a dimension is constant."""

    rotation: Float[Tensor, "D D"]
    variances: Float[Tensor, " D"]
    """Of the coordinates, on the features that the axes were made from."""

    def coordinates(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Move features into the coordinates."""
        return ((features - self.mean) / self.scale) @ self.rotation


def principal_axes(features: Float[Tensor, "N D"]) -> Axes:
    """Find the axes from training features."""
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(scale > torch.finfo(scale.dtype).eps * mean.abs().clamp_min(1), scale, 1.0)
    standardised = (features - mean) / scale
    variances, rotation = torch.linalg.eigh(standardised.T @ standardised / len(features))
    return Axes(mean, scale, rotation, variances.clamp_min(0))


class Logistic(NamedTuple):
    """A fitted multinomial logistic regression."""

    weights: Float[Tensor, "D V"]
    bias: Float[Tensor, " V"]

    @classmethod
    def zeros(cls, width: int, num_classes: int) -> "Logistic":
        """Where a fit starts that knows nothing: all classes equally probable."""
        return cls(torch.zeros(width, num_classes), torch.zeros(num_classes))

    def predict(self, coordinates: Float[Tensor, "M D"]) -> Int64[Tensor, " M"]:
        """Most probable class of each row."""
        return (coordinates @ self.weights + self.bias).argmax(dim=1)


def fit_logistic(
    coordinates: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    variances: Float[Tensor, " D"],
    penalty: float,
    start: Logistic,
) -> Logistic:
    """Minimise mean cross-entropy + penalty / 2 · ‖weights‖², by full-batch L-BFGS to convergence.

    The minimum is that of scikit-learn's ``LogisticRegression(C=1 / (penalty * N))`` on the standardised
    features: a rotation leaves the norm as it is. On principal axes the curvature of the loss is nearly
    diagonal and known beforehand, at most variance / V + penalty (Böhning, 1992); dividing by its root makes
    50 evaluations enough where 450 were needed (random ResNet features of CIFAR-10, 50 000 × 128).

    Args:
        coordinates: features on `principal_axes`.
        classes: of the rows, in [0, V).
        variances: of the coordinates, roughly; they change the speed, not the minimum.
        penalty: positive.
        start: a first guess, e.g. the fit of a neighbouring penalty; its width is V.
    """
    scales = (variances / len(start.bias) + penalty).rsqrt()[:, None]  # (D, 1)
    scaled = (start.weights / scales).requires_grad_()
    bias = start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled, bias],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        weights = scaled * scales
        total = F.cross_entropy(coordinates @ weights + bias, classes) + penalty / 2 * weights.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return Logistic((scaled * scales).detach(), bias.detach())
