from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from torch import Tensor

from crosscontext.confidence import interval, resample, value_of
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
    assert isinstance(measurement.statistic, AdjustedRandIndex)
    return measurement.statistic.clusters


def overlapping(size: int, num_clusters: int, num_classes: int = 3) -> tuple[Tensor, Tensor]:
    """Clusters that know something of the classes."""
    classes = drawn(size, num_classes, seed=0)
    clusters = torch.where(
        drawn(size, 2, seed=1) > 0, classes % num_clusters, drawn(size, num_clusters, seed=2)
    )
    return clusters, classes


@pytest.mark.parametrize("num_clusters", [1, 2, 3, 7])
def test_nmi_and_ari_are_those_of_scikit_learn(num_clusters: int) -> None:
    clusters, classes = overlapping(40, num_clusters)
    nmi, ari = NormalisedMutualInformation.of(clusters, classes), AdjustedRandIndex(clusters, classes)
    expected_nmi = normalized_mutual_info_score(classes.numpy(), clusters.numpy())
    assert value_of(nmi) == pytest.approx(expected_nmi, abs=1e-12)
    assert value_of(ari) == pytest.approx(adjusted_rand_score(classes.numpy(), clusters.numpy()), abs=1e-12)


def test_of_many_images_counts_mean_repeated_ones_to_scikit_learn() -> None:
    clusters, classes = overlapping(20_000, 4)
    counts = np.random.default_rng(3).multinomial(20_000, [1 / 20_000] * 20_000, size=5)
    for statistic, oracle in (
        (NormalisedMutualInformation.of(clusters, classes), normalized_mutual_info_score),
        (AdjustedRandIndex(clusters, classes), adjusted_rand_score),
    ):
        values = statistic(torch.from_numpy(counts).double()).numpy() - value_of(statistic)
        expected = [
            oracle(np.repeat(classes.numpy(), row), np.repeat(clusters.numpy(), row)) - value_of(statistic)
            for row in counts
        ]
        assert values == pytest.approx(expected, abs=0.1 * np.std(expected))


def test_the_rand_index_of_a_resample_counts_pairs_of_different_images() -> None:
    clusters, classes = overlapping(12, 3)
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(12, [1 / 12] * 12, size=4)).double()
    for row, value in zip(counts, AdjustedRandIndex(clusters, classes)(counts).tolist(), strict=True):
        images = torch.arange(12).repeat_interleave(row.long()).tolist()
        pairs = [(i, j) for i in images for j in images if i != j]
        together = [bool(clusters[i] == clusters[j]) for i, j in pairs]
        alike = [bool(classes[i] == classes[j]) for i, j in pairs]
        agreed = sum(one and other for one, other in zip(together, alike, strict=True))
        by_chance = sum(together) * sum(alike) / len(pairs)
        most = (sum(together) + sum(alike)) / 2
        assert value == pytest.approx((agreed - by_chance) / (most - by_chance))


def test_intervals_of_few_images_in_many_clusters_hold_the_value() -> None:
    clusters, classes = overlapping(300, 10, num_classes=10)
    for statistic in (
        NormalisedMutualInformation.of(clusters, classes),
        AdjustedRandIndex(clusters, classes),
    ):
        replicates = resample(statistic, seed=0)
        assert abs(replicates.mean() - value_of(statistic)) < 0.15 * replicates.std()


@pytest.mark.parametrize("groups", [torch.zeros(5, dtype=torch.int64), torch.arange(5)])
def test_all_in_one_cluster_and_each_in_its_own_are_as_good_as_such_classes(groups: Tensor) -> None:
    assert value_of(NormalisedMutualInformation.of(groups, groups)) == 1
    assert value_of(AdjustedRandIndex(groups, groups)) == 1


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
    (accuracy, nmi, ari), (poisoned_accuracy, poisoned_nmi, poisoned_ari) = (
        settings.measure(features, seed=0) for features in (honest, shuffled)
    )
    assert torch.equal(clusters_of(ari), clusters_of(poisoned_ari))
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
    assert torch.equal(clusters_of(first[2]), clusters_of(second[2]))
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
