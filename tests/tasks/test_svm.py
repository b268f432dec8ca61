import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC
from torch import Tensor

from crosscontext.confidence import resample, value_of
from crosscontext.errors import DataError
from crosscontext.features import Features
from crosscontext.stratified import folds
from crosscontext.tasks import SvmSettings
from crosscontext.tasks.svm import MeanAveragePrecision, average_precision
from measured import right

NUM_CLASSES, WIDTH = 3, 12
FEW_COSTS = SvmSettings(costs=(0.1, 10))


def noisy(size: int, seed: int) -> Features:
    """Classes that a linear map tells apart in part."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(NUM_CLASSES, WIDTH, generator=torch.Generator().manual_seed(77))
    classes = torch.arange(size) % NUM_CLASSES
    values = centres[classes] + 1.5 * torch.randn(size, WIDTH, generator=generator)
    return Features(1 + values, classes, tuple(map(str, range(size))), {})


def ranked_images() -> tuple[Tensor, Tensor]:
    """Scores with many ties, and classes."""
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(90) % 3
    scores = (torch.eye(3)[classes] + torch.randn(90, 3, generator=generator)).mul(4).round()
    return scores, classes


def test_average_precision_agrees_with_scikit_learn_also_for_ties_and_resamples() -> None:
    scores, classes = ranked_images()
    positive = classes == 1
    counts = torch.from_numpy(np.random.default_rng(0).poisson(1, (5, 90)).astype(float))
    counts[0] = 1
    found = average_precision(scores[:, 1], positive, counts.T.contiguous())
    expected = [
        average_precision_score(positive.numpy(), scores[:, 1].numpy(), sample_weight=row.numpy())
        for row in counts
    ]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_counting_an_image_twice_is_having_it_twice() -> None:
    scores, classes = ranked_images()
    counts = torch.ones(1, 90, dtype=torch.float64)
    counts[0, :30] = 2
    twice = MeanAveragePrecision(torch.cat([scores, scores[:30]]), torch.cat([classes, classes[:30]]))
    assert float(MeanAveragePrecision(scores, classes)(counts)) == pytest.approx(value_of(twice), rel=1e-12)


def test_the_mean_is_over_the_classes_that_are_there() -> None:
    scores, classes = ranked_images()
    counts = torch.stack([torch.ones(90), (classes != 2).float()]).double()
    values = MeanAveragePrecision(scores, classes)(counts)
    for value, weights, labels in zip(values.tolist(), counts.numpy(), ([0, 1, 2], [0, 1]), strict=True):
        by_class = [
            average_precision_score(
                (classes == label).numpy(), scores[:, label].numpy(), sample_weight=weights
            )
            for label in labels
        ]
        assert value == pytest.approx(np.mean(by_class), rel=1e-12)


def test_the_statistic_has_an_interval_around_its_value() -> None:
    statistic = MeanAveragePrecision(*ranked_images())
    replicates = resample(statistic, seed=0)
    assert replicates.shape == (1000,)
    assert replicates.min() < value_of(statistic) < replicates.max()
    assert replicates.std() > 0.01


def test_costs_and_scores_are_those_of_scikit_learn_on_the_same_folds() -> None:
    train, test = noisy(240, 0), noisy(600, 1)
    assert train.classes is not None
    assert test.classes is not None
    task = SvmSettings(costs=(10, 0.01, 1))
    top1, mean_precision = task.measure(train, test, seed=0)
    assert (top1.metric, mean_precision.metric) == ("top1", "mAP")

    values, queries = (F.normalize(part.values, dim=1).double().numpy() for part in (train, test))
    fold_of = folds(train.classes, 3, seed=0).numpy()
    chosen, scores, best = [], np.zeros((600, NUM_CLASSES)), []
    for label in range(NUM_CLASSES):
        is_class = (train.classes == label).numpy()
        precisions = {}
        for cost in (0.01, 1, 10):
            svm = LinearSVC(C=cost, class_weight={True: 2.0}, dual=False, tol=1e-8, max_iter=10_000)
            precisions[cost] = np.mean(
                [
                    average_precision_score(
                        is_class[fold_of == fold],
                        svm.fit(values[fold_of != fold], is_class[fold_of != fold]).decision_function(
                            values[fold_of == fold]
                        ),
                    )
                    for fold in range(3)
                ]
            )
        chosen.append(max(precisions, key=lambda cost: precisions[cost]))
        best.append(max(precisions.values()))
        svm = LinearSVC(C=chosen[-1], class_weight={True: 2.0}, dual=False, tol=1e-8, max_iter=10_000)
        scores[:, label] = svm.fit(values, is_class).decision_function(queries)
    assert top1.details["costs"] == pytest.approx(chosen)
    assert top1.details["cross_validated_mAP"] == pytest.approx(np.mean(best), abs=0.002)
    expected = np.mean(
        [average_precision_score((test.classes == c).numpy(), scores[:, c]) for c in range(NUM_CLASSES)]
    )
    assert mean_precision.value == pytest.approx(expected, abs=0.002)
    assert top1.value == pytest.approx((scores.argmax(axis=1) == test.classes.numpy()).mean(), abs=0.005)


def test_test_labels_and_test_images_touch_neither_choice_nor_predictions() -> None:
    train, test = noisy(150, 0), noisy(300, 1)
    assert test.classes is not None
    honest, _ = FEW_COSTS.measure(train, test, seed=0)
    by_poison = []
    for poison in range(NUM_CLASSES):
        all_the_same = test._replace(classes=torch.full_like(test.classes, poison))
        measured, _ = FEW_COSTS.measure(train, all_the_same, seed=0)
        assert measured.details == honest.details
        by_poison.append(right(measured))
    assert torch.stack(by_poison).sum(dim=0).eq(1).all()
    predicted = torch.stack(by_poison).int().argmax(dim=0)
    assert torch.equal(predicted == test.classes, right(honest))

    nothing, _ = FEW_COSTS.measure(train, test._replace(values=torch.ones(300, WIDTH)), seed=0)
    assert nothing.details == honest.details


def test_the_same_seed_gives_the_same_answers() -> None:
    first, second = (list(FEW_COSTS.measure(noisy(150, 0), noisy(60, 1), seed=3)) for _ in range(2))
    assert torch.equal(right(first[0]), right(second[0]))
    assert first[1].value == second[1].value
    assert first[0].details == second[0].details


def test_the_length_of_a_feature_does_not_matter() -> None:
    train, test = noisy(150, 0), noisy(60, 1)
    longer = train._replace(values=train.values * torch.linspace(1, 9, 150)[:, None])
    (first, _), (second, _) = (
        SvmSettings(costs=(1,)).measure(part, test, seed=0) for part in (train, longer)
    )
    assert (right(first) == right(second)).double().mean() > 0.98


def test_too_few_images_of_a_class_for_the_folds_are_refused() -> None:
    with pytest.raises(DataError, match=r"has 2 training images, too few .* 3 folds"):
        list(FEW_COSTS.measure(noisy(6, 0), noisy(6, 1), seed=0))
