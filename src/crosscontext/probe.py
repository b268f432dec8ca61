"""Classifiers on frozen features: features and classes of training images → **probe** → classes of others.

Pure functions; `tasks/` says which of their settings are tried, and on which images.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.features import Features
from crosscontext.neighbours import Neighbours, nearest
from crosscontext.shapes import Bool, Float, Int64

_VOTES_AT_ONCE = 2**22
_GRADIENT_TOLERANCE = 5e-4  # leaves the loss within 1e-4 of its minimum, and the accuracy within 0.1 points
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
    return float(torch.eq(predicted, test.classes).double().mean())


def knn_classes(
    train: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    test: Float[Tensor, "M D"],
    ks: Sequence[int],
    temperature: float,
) -> dict[int, Tensor]:
    """Let the k most similar training images vote for the class of each test image.

    Source: Wu et al., arXiv 1805.01978, section 3.4. The search is exact.

    Args:
        train: features, of any length; cosines ignore it.
        classes: of the training images.
        test: features.
        ks: numbers of neighbours, each in [1, N].
        temperature: as of `vote`.

    Returns:
        Each k → predicted classes (M,).
    """
    return vote(nearest(test, train, max(ks)), classes, ks, temperature)


def vote(
    neighbours: Neighbours, classes: Int64[Tensor, " N"], ks: Sequence[int], temperature: float | None
) -> dict[int, Tensor]:
    """Let the first k neighbours of each query vote for its class.

    For one query, with the cosines to its neighbours, the most similar one first::

        votes[classes[i]] += exp(cosine_i / temperature), or 1 without temperature   for i in neighbours[:k]
        predicted = argmax(votes)

    Of classes with equally many votes the first one wins, as in scikit-learn.

    Args:
        neighbours: of the queries.
        classes: of the images among which they were found.
        ks: numbers of neighbours that vote, none larger than there are.
        temperature: positive; small values let the nearest ones decide. None: all votes count alike.

    Returns:
        Each k → predicted classes (M,).
    """
    num_classes = int(classes.max()) + 1
    sorted_ks = sorted(set(ks))
    predicted: dict[int, list[Tensor]] = {k: [] for k in sorted_ks}
    queries_at_once = max(1, _VOTES_AT_ONCE // num_classes)
    for similarity, rows in zip(*(part.split(queries_at_once) for part in neighbours), strict=True):
        relative = similarity - similarity[:, :1]  # to the nearest: no overflow
        weights = torch.ones_like(similarity) if temperature is None else (relative / temperature).exp()
        votes = weights.new_zeros(len(rows), num_classes)
        for counted, k in zip([0, *sorted_ks], sorted_ks, strict=False):
            votes.scatter_add_(1, classes[rows[:, counted:k]], weights[:, counted:k])
            predicted[k].append(votes.argmax(dim=1))
    return {k: torch.cat(parts) for k, parts in predicted.items()}


class Standard(NamedTuple):
    """Shift and scale that give each dimension mean 0 and standard deviation 1."""

    mean: Float[Tensor, " D"]
    scale: Float[Tensor, " D"]
    """1 where a dimension is constant."""

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "Standard":
        """Measure features."""
        mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
        rounding = torch.finfo(scale.dtype).eps * mean.abs().clamp_min(1)
        return cls(mean, torch.where(scale > rounding, scale, 1.0))

    def apply(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
        """Standardise features, also others than those measured."""
        return (features - self.mean) / self.scale


class PrincipalAxes(NamedTuple):
    """Directions in which features vary about 0, and how much."""

    directions: Float[Tensor, "D D"]
    """One a column, orthonormal."""

    variances: Float[Tensor, " D"]

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> "PrincipalAxes":
        """Find the axes of features, which need not have mean 0."""
        variances, directions = torch.linalg.eigh(features.T @ features / len(features))
        return cls(directions, variances.clamp_min(0))


class LinearClassifier(NamedTuple):
    """One linear score a class; the highest one wins."""

    weights: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"]

    @classmethod
    def zeros(cls, num_classes: int, width: int) -> "LinearClassifier":
        """All classes are equal: where a fit starts that knows nothing."""
        return cls(torch.zeros(num_classes, width), torch.zeros(num_classes))

    def scores(self, features: Float[Tensor, "M D"]) -> Float[Tensor, "M V"]:
        """Score of each class for each row."""
        return F.linear(features, *self)

    def predict(self, features: Float[Tensor, "M D"]) -> Int64[Tensor, " M"]:
        """Class of the highest score for each row."""
        return self.scores(features).argmax(dim=1)


def fit_logistic(
    features: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    axes: PrincipalAxes,
    penalty: float,
    start: LinearClassifier,
) -> LinearClassifier:
    """Minimise mean cross-entropy + penalty / 2 · ‖weights‖² to convergence, by full-batch L-BFGS.

    The minimum is that of scikit-learn's ``LogisticRegression(C=1 / (penalty * N))``. The way there is
    shorter: along a principal axis the curvature of the loss is about variance / V + penalty (bounds:
    Böhning, 1992), and steps are measured in units of its root. On random ResNet features of CIFAR-10,
    50 000 × 128, 58 evaluations do what takes 454 without.

    Args:
        features: standardised.
        classes: of the rows, in [0, V).
        axes: of the features, or of most of them: they change the speed, not the minimum.
        penalty: positive.
        start: a first guess, e.g. the fit of a neighbouring penalty.
    """

    def objective(weights: Tensor, bias: Tensor) -> Tensor:
        loss = F.cross_entropy(F.linear(features, weights, bias), classes)
        return loss + penalty / 2 * weights.square().sum()

    curvature = axes.variances / len(start.bias) + penalty  # (D,)
    return _minimise(objective, axes.directions, curvature, start)


def fit_svm(
    features: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    axes: PrincipalAxes,
    costs: Float[Tensor, " V"],
    positive_weight: float,
    start: LinearClassifier,
) -> LinearClassifier:
    """Fit a linear support vector machine for each class against all others, all at once, to convergence.

    The minimum for class v is that of scikit-learn's ``LinearSVC(C=costs[v], class_weight={1:
    positive_weight})``: squared hinge loss, and like LIBLINEAR a penalty on the bias too. LIBLINEAR needs 16
    bytes a value and a fit a class; here a fit is as dear as that of `fit_logistic`.

    Args:
        features: of any scale, which the costs must suit; usually of length 1.
        classes: of the rows, in [0, V).
        axes: of the features, or of most of them: they change the speed, not the minimum.
        costs: positive; weight of the summed loss against half the squared weights.
        positive_weight: of the images of a class against one of all others.
        start: a first guess, e.g. the fit of neighbouring costs.
    """
    signs = 2.0 * F.one_hot(classes, len(costs)) - 1  # (N, V)
    importance = torch.where(signs > 0, positive_weight, 1.0)
    penalties = 1 / (costs * len(features))

    def objective(weights: Tensor, bias: Tensor) -> Tensor:
        hinge = (1 - signs * F.linear(features, weights, bias)).clamp_min(0)
        size = weights.square().sum(dim=1) + bias.square()
        return ((importance * hinge.square()).mean(dim=0) + penalties / 2 * size).sum()

    curvature = 2 * axes.variances + penalties[:, None]  # (V, D)
    return _minimise(objective, axes.directions, curvature, start)


def _minimise(
    objective: Callable[[Tensor, Tensor], Tensor],
    directions: Float[Tensor, "D D"],
    curvature: Float[Tensor, "*V D"],
    start: LinearClassifier,
) -> LinearClassifier:
    """Find the weights and the bias of the smallest objective by L-BFGS.

    Args:
        objective: convex; weights (V, D) and bias (V,) → scalar.
        directions: one a column, along which steps are made.
        curvature: about that of the objective along each direction, of all classes or of each.
        start: where to start.
    """
    units = curvature.rsqrt()
    along_axes = (start.weights @ directions / units).requires_grad_()  # (V, D)
    bias = start.bias.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [along_axes, bias],
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=_GRADIENT_TOLERANCE,
        tolerance_change=1e-9,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def weights() -> Tensor:
        return (along_axes * units) @ directions.T  # (V, D)

    def evaluate() -> Tensor:
        optimizer.zero_grad()
        value = objective(weights(), bias)
        value.backward()
        return value

    optimizer.step(evaluate)
    return LinearClassifier(weights().detach(), bias.detach())


class Chosen(NamedTuple):
    """A logistic regression whose penalty was chosen on held-out rows, fitted to all of them."""

    logistic: LinearClassifier
    standard: Standard
    """To be applied to features first."""

    penalty: float
    score: float
    """Of that penalty on the held-out rows."""

    def predict(self, features: Float[Tensor, "M D"]) -> Int64[Tensor, " M"]:
        """Most probable class of each row."""
        return self.logistic.predict(self.standard.apply(features))


def choose_penalty(
    features: Float[Tensor, "N D"],
    classes: Int64[Tensor, " N"],
    num_classes: int,
    held_out: Bool[Tensor, " N"],
    penalties: Sequence[float],
    score: Callable[[Tensor, Tensor], float],
) -> Chosen:
    """Fit logistic regressions to standardised features with each penalty, and again with the best one.

    Args:
        features: as they are.
        classes: of the rows.
        num_classes: V; the probability of classes without rows nearly vanishes.
        held_out: rows that judge the penalties; mean, scale and axes are those of the others.
        penalties: candidates; of equally good ones the largest is taken.
        score: predicted and true classes of the held-out rows → a number, the higher the better.
    """
    standard = Standard.of(features[~held_out])
    values = standard.apply(features)
    fit_values, fit_classes = values[~held_out], classes[~held_out]
    axes = PrincipalAxes.of(fit_values)
    logistic = LinearClassifier.zeros(num_classes, values.shape[1])
    candidates: list[tuple[float, float, LinearClassifier]] = []
    for penalty in sorted(penalties, reverse=True):  # each fit starts from the one before
        logistic = fit_logistic(fit_values, fit_classes, axes, penalty, logistic)
        reached = score(logistic.predict(values[held_out]), classes[held_out])
        candidates.append((reached, penalty, logistic))
    reached, penalty, logistic = max(candidates, key=lambda candidate: candidate[:2])
    return Chosen(fit_logistic(values, classes, axes, penalty, logistic), standard, penalty, reached)
