import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC
from torch import Tensor

from crosscontext import neighbours, probe
from crosscontext.features import Features
from crosscontext.neighbours import Neighbours, nearest
from crosscontext.probe import (
    LinearClassifier,
    PrincipalAxes,
    Standard,
    fit_logistic,
    fit_svm,
    knn_classes,
    knn_top1,
    vote,
)

NUM_CLASSES = 5


def blobs(size: int, width: int, seed: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Overlapping classes on correlated dimensions of very different variance, like real features."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(NUM_CLASSES, width, generator=torch.Generator().manual_seed(99))
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(98)) * torch.logspace(
        0, -2, width
    )
    classes = torch.randint(NUM_CLASSES, (size,), generator=generator)
    return (centres[classes] + spread * torch.randn(size, width, generator=generator)) @ mixing.T + 1, classes


@pytest.mark.parametrize("k", [1, 7, 40, 200])
def test_knn_agrees_with_scikit_learn(k: int) -> None:
    train, classes = blobs(200, 12, seed=0, spread=3)
    test, _ = blobs(150, 12, seed=1, spread=3)
    oracle = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distances: np.exp((1 - distances) / 0.07)
    )
    expected = oracle.fit(train.double().numpy(), classes.numpy()).predict(test.double().numpy())
    predicted = knn_classes(train.double(), classes, test.double(), (k,), 0.07)[k]
    assert predicted.tolist() == expected.tolist()


def test_knn_agrees_with_the_loop_of_its_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_SIMILARITIES_AT_ONCE", 60 * 7)  # seven test images, the last time three
    monkeypatch.setattr(probe, "_VOTES_AT_ONCE", NUM_CLASSES * 5)
    train, classes = blobs(60, 6, seed=2, spread=3)
    test, _ = blobs(24, 6, seed=3, spread=3)
    predicted = knn_classes(train, classes, test, (20, 3), 0.2)
    for k in (3, 20):
        for query, found in zip(test, predicted[k].tolist(), strict=True):
            cosines = F.cosine_similarity(query[None], train).tolist()
            nearest = sorted(range(60), key=lambda i: -cosines[i])[:k]
            votes = [0.0] * NUM_CLASSES
            for i in nearest:
                votes[int(classes[i])] += np.exp(cosines[i] / 0.2)
            assert found == int(np.argmax(votes))


@pytest.mark.parametrize("k", [1, 2, 7, 40, 200])
def test_the_majority_is_that_of_scikit_learn_ties_too(k: int) -> None:
    train, classes = blobs(200, 12, seed=0, spread=3)
    test, _ = blobs(150, 12, seed=1, spread=3)
    oracle = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    oracle.fit(train.double().numpy(), classes.numpy())
    expected = oracle.predict(test.double().numpy())
    predicted = vote(nearest(test.double(), train.double(), k), classes, (k,), None)[k]
    assert predicted.tolist() == expected.tolist()
    if k == 2:  # two different votes are a tie
        voters = classes[nearest(test.double(), train.double(), 2).rows]
        tied = voters[:, 0] != voters[:, 1]
        assert tied.any()
        assert torch.equal(predicted[tied], voters[tied].min(dim=1).values)


def test_of_classes_with_equally_many_votes_the_first_wins_in_both_votes() -> None:
    found = Neighbours(torch.full((2, 4), 0.5), torch.tensor([[3, 2, 1, 0], [3, 3, 2, 1]]))
    classes = torch.tensor([1, 1, 2, 2])
    for temperature in (0.07, None):
        assert vote(found, classes, (4,), temperature)[4].tolist() == [1, 2]


def test_the_weighted_vote_can_overrule_the_majority() -> None:
    found = Neighbours(torch.tensor([[0.9, 0.1, 0.1]]), torch.tensor([[0, 1, 2]]))
    classes = torch.tensor([0, 1, 1])
    assert vote(found, classes, (3,), 0.07)[3].tolist() == [0]
    assert vote(found, classes, (3,), None)[3].tolist() == [1]


def test_asking_for_several_k_at_once_changes_none() -> None:
    train, classes = blobs(80, 6, seed=0, spread=3)
    test, _ = blobs(30, 6, seed=1, spread=3)
    together = knn_classes(train, classes, test, (50, 1, 10), 0.07)
    assert set(together) == {1, 10, 50}
    for k, predicted in together.items():
        assert torch.equal(predicted, knn_classes(train, classes, test, (k,), 0.07)[k])


def test_a_very_small_temperature_leaves_the_nearest_neighbour_alone_to_decide() -> None:
    train, classes = blobs(80, 6, seed=0, spread=3)
    test, _ = blobs(30, 6, seed=1, spread=3)
    sharp = knn_classes(train, classes, test, (40,), 1e-6)[40]
    assert torch.equal(sharp, knn_classes(train, classes, test, (1,), 0.07)[1])


def test_knn_top1_is_the_share_of_right_answers() -> None:
    train = Features(torch.eye(3), torch.tensor([0, 1, 2]), ("a", "b", "c"), {})
    test = Features(torch.eye(3)[[0, 1, 2, 2]], torch.tensor([0, 1, 0, 2]), ("d", "e", "f", "g"), {})
    assert knn_top1(train, test) == 0.75


def standardised(size: int, width: int) -> tuple[Tensor, Tensor, PrincipalAxes]:
    values, classes = blobs(size, width, seed=0, spread=2)
    values = Standard.of(values).apply(values)
    return values, classes, PrincipalAxes.of(values)


@pytest.mark.parametrize("penalty", [1e-4, 1e-2, 1.0])
def test_logistic_regression_agrees_with_scikit_learn(penalty: float) -> None:
    values, classes, axes = standardised(2000, 16)
    fitted = fit_logistic(values, classes, axes, penalty, LinearClassifier.zeros(NUM_CLASSES, 16))
    oracle = LogisticRegression(C=1 / (penalty * len(values)), max_iter=5000, tol=1e-8)
    oracle.fit(values.double().numpy(), classes.numpy())
    expected = torch.from_numpy(oracle.coef_).float()
    assert (fitted.weights - expected).norm() < 0.02 * expected.norm()
    same = fitted.predict(values) == torch.from_numpy(oracle.predict(values.double().numpy()))
    assert same.double().mean() > 0.995


def penalised_loss(logistic: LinearClassifier, values: Tensor, classes: Tensor, penalty: float) -> Tensor:
    return (
        F.cross_entropy(F.linear(values, *logistic), classes) + penalty / 2 * logistic.weights.square().sum()
    )


def test_no_gradient_is_left_at_the_fit() -> None:
    values, classes, axes = standardised(400, 8)
    fitted = fit_logistic(values, classes, axes, 1e-3, LinearClassifier.zeros(NUM_CLASSES, 8))
    at_fit = LinearClassifier(*(part.clone().requires_grad_() for part in fitted))
    gradients = torch.autograd.grad(penalised_loss(at_fit, values, classes, 1e-3), at_fit)
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-3


def test_neither_the_axes_nor_the_start_move_the_minimum() -> None:
    values, classes, axes = standardised(400, 8)
    reference = fit_logistic(values, classes, axes, 1e-2, LinearClassifier.zeros(NUM_CLASSES, 8))
    no_axes = PrincipalAxes(torch.eye(8), torch.ones(8))
    far = LinearClassifier(
        torch.randn(NUM_CLASSES, 8, generator=torch.Generator().manual_seed(0)), torch.ones(NUM_CLASSES)
    )
    other = fit_logistic(values, classes, no_axes, 1e-2, far)
    torch.testing.assert_close(
        penalised_loss(other, values, classes, 1e-2),
        penalised_loss(reference, values, classes, 1e-2),
        rtol=1e-4,
        atol=0,
    )
    assert (other.weights - reference.weights).norm() < 0.03 * reference.weights.norm()


def fit(values: Tensor, classes: Tensor) -> LinearClassifier:
    features = Standard.of(values).apply(values)
    start = LinearClassifier.zeros(NUM_CLASSES, features.shape[1])
    return fit_logistic(features, classes, PrincipalAxes.of(features), 1e-2, start)


def test_a_constant_dimension_changes_nothing() -> None:
    values, classes = blobs(300, 6, seed=0)
    plain, padded = fit(values, classes), fit(torch.cat([values, torch.full((300, 1), 3.3)], dim=1), classes)
    torch.testing.assert_close(padded.weights[:, :6], plain.weights, rtol=0.02, atol=5e-3)
    assert padded.weights[:, 6].abs().max() < 1e-3


def test_a_dimension_that_stands_twice_shares_its_weight() -> None:
    values, classes = blobs(300, 6, seed=0)
    weights = fit(torch.cat([values, values[:, :1]], dim=1), classes).weights
    torch.testing.assert_close(weights[:, 6], weights[:, 0], rtol=0.02, atol=5e-3)


def test_standardised_dimensions_have_mean_0_and_deviation_1() -> None:
    values, _ = blobs(300, 6, seed=0)
    features = Standard.of(values).apply(values)
    torch.testing.assert_close(features.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(features.std(0, correction=0), torch.ones(6))


def test_support_vector_machines_agree_with_scikit_learn() -> None:
    values, classes = blobs(600, 16, seed=0, spread=3)
    values = F.normalize(values, dim=1)
    costs = torch.tensor([0.03, 0.3, 1.0, 3.0, 30.0])
    start = LinearClassifier.zeros(NUM_CLASSES, 16)
    fitted = fit_svm(values, classes, PrincipalAxes.of(values), costs, 2.0, start)
    for label, cost in enumerate(costs.tolist()):
        oracle = LinearSVC(C=cost, class_weight={1: 2.0}, dual=False, tol=1e-8, max_iter=10_000)
        oracle.fit(values.double().numpy(), (classes == label).int().numpy())
        expected = torch.from_numpy(np.append(oracle.coef_, oracle.intercept_)).float()
        found = torch.cat([fitted.weights[label], fitted.bias[label, None]])
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_the_cost_of_one_class_does_not_touch_another() -> None:
    values, classes = blobs(300, 8, seed=0, spread=3)
    axes, start = PrincipalAxes.of(values), LinearClassifier.zeros(NUM_CLASSES, 8)
    alike, unlike = torch.ones(NUM_CLASSES), torch.tensor([1.0, 0.01, 1.0, 1.0, 1.0])
    first, second = (fit_svm(values, classes, axes, costs, 2.0, start) for costs in (alike, unlike))
    torch.testing.assert_close(
        first.weights[[0, 2, 3, 4]], second.weights[[0, 2, 3, 4]], rtol=0.05, atol=0.01
    )
    assert (first.weights[1] - second.weights[1]).norm() > 0.1 * first.weights[1].norm()
