from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from torch import Tensor

from crosscontext.confidence import interval, resample
from crosscontext.errors import DataError, SettingsError
from crosscontext.features import Features
from crosscontext.tasks import ClusterSettings, Measurement
from crosscontext.tasks.cluster import (
    AdjustedRandIndex,
    NormalisedMutualInformation,
    k_means,
    matched,
    totals,
)
from measured import right


def blobs(size: int, spread: float = 0.15, num_classes: int = 3) -> Features:
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(size) % num_classes
    values = torch.eye(num_classes, 6)[classes] + spread * torch.randn(size, 6, generator=generator)
    return Features(values, classes, tuple(map(str, range(size))), {})


def drawn(size: int, num_groups: int, seed: int) -> Tensor:
    return torch.randint(num_groups, (size,), generator=torch.Generator().manual_seed(seed))


def clusters_of(measurement: Measurement) -> Tensor:
    assert isinstance(measurement.statistic, NormalisedMutualInformation | AdjustedRandIndex)
    return measurement.statistic.clusters


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 7])
def test_counts_mean_repeated_images_to_nmi_and_ari_of_scikit_learn(num_clusters: int) -> None:
    classes = drawn(40, 3, seed=0)
    clusters = torch.where(drawn(40, 2, seed=1) > 0, classes % num_clusters, drawn(40, num_clusters, seed=2))
    generator = np.random.default_rng(3)
    counts = np.stack([np.ones(40, dtype=int), *generator.multinomial(40, [1 / 40] * 40, size=20)])
    for statistic, oracle in (
        (NormalisedMutualInformation(clusters, classes), normalized_mutual_info_score),
        (AdjustedRandIndex(clusters, classes), adjusted_rand_score),
    ):
        values = statistic(torch.from_numpy(counts).double())
        expected = [
            oracle(np.repeat(classes.numpy(), row), np.repeat(clusters.numpy(), row)) for row in counts
        ]
        assert values.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("groups", [torch.zeros(5, dtype=torch.int64), torch.arange(5)])
def test_all_in_one_cluster_and_each_in_its_own_are_as_good_as_such_classes(groups: Tensor) -> None:
    counts = torch.ones(1, 5, dtype=torch.float64)
    assert NormalisedMutualInformation(groups, groups)(counts).tolist() == [1]
    assert AdjustedRandIndex(groups, groups)(counts).tolist() == [1]


def test_totals_add_up_the_counts_of_each_group() -> None:
    counts = torch.tensor([[1.0, 0, 2, 3], [4, 1, 0, 0]], dtype=torch.float64)
    assert totals(counts, torch.tensor([5, 2, 5, 2])).tolist() == [[3, 3], [1, 4]]


@pytest.mark.parametrize(("num_clusters", "num_classes"), [(4, 4), (5, 3), (3, 5)])
def test_the_matching_is_the_best_of_all(num_clusters: int, num_classes: int) -> None:
    clusters, classes = drawn(30, num_clusters, seed=4), drawn(30, num_classes, seed=5)
    most = max(num_clusters, num_classes)  # classes beyond the last one are of no image
    best = max(
        sum(
            meant[cluster] == label
            for cluster, label in zip(clusters.tolist(), classes.tolist(), strict=True)
        )
        for meant in permutations(range(most), num_clusters)
    )
    assert int(matched(clusters, classes).sum()) == best


def test_clear_clusters_are_the_classes() -> None:
    accuracy, nmi, ari = ClusterSettings().measure(blobs(60), seed=0)
    assert (accuracy.metric, nmi.metric, ari.metric) == ("accuracy", "nmi", "ari")
    assert (accuracy.value, nmi.value, ari.value) == pytest.approx((1, 1, 1))
    assert accuracy.details == {"clusters": 3}


def test_shuffled_labels_change_no_cluster_and_no_number_of_clusters() -> None:
    honest = blobs(60, spread=0.5)
    assert honest.classes is not None
    shuffled = honest._replace(
        classes=honest.classes[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    )
    settings = ClusterSettings(clusters=(2, 3, 4))
    (accuracy, nmi, _), (poisoned_accuracy, poisoned_nmi, _) = (
        settings.measure(features, seed=0) for features in (honest, shuffled)
    )
    assert torch.equal(clusters_of(nmi), clusters_of(poisoned_nmi))
    assert nmi.details == poisoned_nmi.details
    assert poisoned_nmi.value < nmi.value
    assert poisoned_accuracy.value < accuracy.value


def test_of_several_numbers_the_one_with_the_best_silhouette_is_taken() -> None:
    features = blobs(80, num_classes=4)
    accuracy, *_ = ClusterSettings(clusters=(2, 7, 4)).measure(features, seed=0)
    assert accuracy.details["clusters"] == 4
    silhouettes = accuracy.details["silhouettes"]
    assert isinstance(silhouettes, dict)
    unit = torch.nn.functional.normalize(features.values, dim=1)
    expected = {
        str(number): silhouette_score(unit.numpy(), k_means(unit, number, n_init=10, seed=0).numpy())
        for number in (2, 4, 7)
    }
    assert silhouettes == pytest.approx(expected, abs=1e-5)
    assert max(expected, key=lambda number: expected[number]) == "4"


def test_silhouettes_of_a_part_of_the_images_choose_as_well() -> None:
    accuracy, *_ = ClusterSettings(clusters=(2, 3, 6), silhouette_images=30).measure(blobs(90), seed=0)
    assert accuracy.details["clusters"] == 3
    assert accuracy.value == 1


def test_the_same_seed_gives_the_same_clusters() -> None:
    features = blobs(200, spread=1.0)
    first, second = (list(ClusterSettings().measure(features, seed=5)) for _ in range(2))
    assert torch.equal(clusters_of(first[1]), clusters_of(second[1]))
    assert torch.equal(right(first[0]), right(second[0]))


def test_the_interval_holds_the_value() -> None:
    for measurement in ClusterSettings().measure(blobs(300, spread=0.5), seed=0):
        low, high = interval(resample(measurement.statistic, seed=0))
        assert low < measurement.value < high


def test_features_that_are_all_alike_make_one_cluster() -> None:
    features = blobs(30)._replace(values=torch.ones(30, 6))
    with pytest.warns(ConvergenceWarning):
        accuracy, nmi, ari = ClusterSettings(clusters=(2, 3)).measure(features, seed=0)
    assert accuracy.details == {"clusters": 1, "silhouettes": {"2": -1.0, "3": -1.0}}
    assert (accuracy.value, nmi.value, ari.value) == pytest.approx((1 / 3, 0, 0))


def test_images_of_one_class_are_refused() -> None:
    features = blobs(30)._replace(classes=torch.zeros(30, dtype=torch.int64))
    with pytest.raises(DataError, match=r"30 test images are all of one class"):
        list(ClusterSettings().measure(features, seed=0))


def test_more_clusters_than_images_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"31 clusters are too many for 30 test images"):
        list(ClusterSettings(clusters=(2, 31)).measure(blobs(30), seed=0))
