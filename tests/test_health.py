import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crosscontext.confidence import interval, resample, value_of
from crosscontext.health import (
    FeatureStd,
    LinearCKA,
    RankMe,
    Uniformity,
    alignment,
    feature_std,
    neighbour_agreement,
    rankme,
)


def test_rankme_of_orthogonal_directions_is_their_number() -> None:
    assert rankme(torch.eye(8).repeat(5, 1)) == pytest.approx(8)


def test_rankme_of_a_constant_is_one() -> None:
    assert rankme(torch.full((30, 6), 2.5)) == pytest.approx(1, abs=1e-5)


def test_rankme_of_two_unequal_directions_follows_their_entropy() -> None:
    features = torch.zeros(2, 4)
    features[0, 0], features[1, 3] = 3.0, 1.0
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert rankme(features) == pytest.approx(math.exp(entropy))


def test_rankme_ignores_scale_and_rotation() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 6, generator=generator)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    assert rankme(7 * features @ rotation) == pytest.approx(rankme(features), rel=1e-4)


def test_rankme_is_bounded_by_the_number_of_images() -> None:
    features = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    assert 4 < rankme(features) <= 5


def test_rankme_of_zeros_is_one() -> None:
    assert rankme(torch.zeros(4, 3)) == 1


def test_feature_std_of_isotropic_features_is_one() -> None:
    features = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    assert feature_std(features) == pytest.approx(1, abs=0.01)


def test_feature_std_of_signed_unit_vectors_has_its_closed_form() -> None:
    signed = torch.cat([torch.eye(4), -torch.eye(4)])  # mean 0, mean square 1/4 in each dimension
    assert feature_std(signed) == pytest.approx(1)


def test_feature_std_of_one_direction_is_zero_whatever_the_lengths() -> None:
    lengths = torch.tensor([[1.0], [5.0], [0.1]])
    assert feature_std(lengths * torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(0, abs=1e-6)


def noise(size: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn(size: int, resamples: int = 6) -> Tensor:
    """Counts of images; in the first row each is there once."""
    counts = np.random.default_rng(0).multinomial(size, [1 / size] * size, size=resamples)
    return torch.from_numpy(np.concatenate([np.ones((1, size), dtype=int), counts])).double()


def repeated(rows: Tensor, counts: Tensor) -> Tensor:
    return rows.repeat_interleave(counts.long(), dim=0)


def test_the_statistics_of_all_images_are_rankme_and_feature_std() -> None:
    features = noise(30, 7) * torch.arange(1, 8)
    once = torch.ones(1, 30, dtype=torch.float64)
    assert float(RankMe.of(features)(once)) == pytest.approx(rankme(features))
    assert float(FeatureStd.of(features)(once)) == pytest.approx(feature_std(features))


def test_counts_mean_repeated_images_to_the_spread() -> None:
    features = noise(30, 7) + 1
    counts = drawn(30)
    expected = [
        float(F.normalize(repeated(features, row), dim=1).std(0, correction=0).mean()) for row in counts
    ]
    assert FeatureStd.of(features)(counts).tolist() == pytest.approx([7**0.5 * value for value in expected])


def test_counts_mean_repeated_images_to_rankme_while_the_directions_stay() -> None:
    features = torch.eye(5, dtype=torch.float64).repeat(6, 1) * torch.arange(1, 6)
    counts = drawn(30)
    expected = [rankme(repeated(features, row)) for row in counts]
    assert RankMe.of(features)(counts).tolist() == pytest.approx(expected)


def test_rankme_of_many_dimensions_lies_in_its_interval() -> None:
    features = noise(150, 100)
    low, high = interval(resample(RankMe.of(features), seed=0))
    assert low < rankme(features) < high
    anew = [rankme(repeated(features, row)) for row in drawn(150, resamples=20)[1:]]
    assert max(anew) < low  # what directions of their own would do to resamples


def test_alignment_is_the_squared_distance_of_unit_vectors() -> None:
    first, second = noise(10, 4), noise(10, 4, seed=1)
    expected = [float((a / a.norm() - b / b.norm()).norm()) ** 2 for a, b in zip(first, second, strict=True)]
    assert alignment(3 * first, second).tolist() == pytest.approx(expected)
    assert alignment(first, first * 2).abs().max() < 1e-12
    assert alignment(first, -first).tolist() == pytest.approx([4.0] * 10)


def test_uniformity_is_that_of_a_loop_over_pairs_of_different_images() -> None:
    features, counts = noise(12, 3), drawn(12)
    unit = F.normalize(features, dim=1)
    for row, value in zip(counts, Uniformity.of(features)(counts).tolist(), strict=True):
        images = torch.arange(12).repeat_interleave(row.long()).tolist()
        potentials = [
            math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in images for j in images if i != j
        ]
        assert value == pytest.approx(math.log(sum(potentials) / len(potentials)))


def test_uniformity_is_0_at_collapse_and_lowest_when_spread() -> None:
    once = torch.ones(1, 300, dtype=torch.float64)
    assert float(Uniformity.of(torch.ones(300, 64))(once)) == pytest.approx(0, abs=1e-6)
    assert float(Uniformity.of(noise(300, 256))(once)) == pytest.approx(-4, abs=0.1)  # −2t


def cka_by_definition(first: Tensor, second: Tensor) -> float:
    centring = torch.eye(len(first), dtype=torch.float64) - 1 / len(first)

    def hsic(one: Tensor, other: Tensor) -> float:
        return float((one @ one.T @ centring @ other @ other.T @ centring).trace()) / (len(first) - 1) ** 2

    return hsic(first, second) / math.sqrt(hsic(first, first) * hsic(second, second))


def related(size: int) -> tuple[Tensor, Tensor]:
    first = noise(size, 6) + 2
    return first, torch.cat([first[:, :3].tanh(), noise(size, 5, seed=1)], dim=1)


def test_cka_is_that_of_its_definition() -> None:
    first, second = related(40)
    value = float(LinearCKA.of(first, second)(torch.ones(1, 40, dtype=torch.float64)))
    assert value == pytest.approx(cka_by_definition(first, second))
    assert 0.1 < value < 0.9


def test_cka_ignores_rotation_scale_and_shift_and_is_1_of_the_same() -> None:
    first, second = related(40)
    rotation = torch.linalg.qr(noise(8, 8)).Q
    once = torch.ones(1, 40, dtype=torch.float64)
    plain, turned, same = (
        float(LinearCKA.of(first, other)(once)) for other in (second, 5 * second @ rotation - 3, 2 * first)
    )
    assert turned == pytest.approx(plain)
    assert same == pytest.approx(1)


def test_cka_of_resamples_is_that_of_a_loop_without_the_pairs_of_copies() -> None:
    first, second = related(9)
    counts = drawn(9)

    def hsic(one: Tensor, other: Tensor, images: list[int]) -> float:
        """Pairs of what was drawn, except those of two copies of one image."""
        total = 0.0
        a, b = (features[images] - features[images].mean(dim=0) for features in (one, other))
        for i in range(9):
            for j in range(9):
                if i == j or images[i] != images[j]:
                    total += float(a[i] @ a[j]) * float(b[i] @ b[j])
        return total

    for row, value in zip(counts, LinearCKA.of(first, second)(counts).tolist(), strict=True):
        images = torch.arange(9).repeat_interleave(row.long()).tolist()
        of_each = hsic(first, first, images) * hsic(second, second, images)
        assert value == pytest.approx(hsic(first, second, images) / math.sqrt(of_each))


def test_cka_of_many_dimensions_lies_in_its_interval() -> None:
    statistic = LinearCKA.of(noise(100, 200), noise(100, 200, seed=1))
    low, high = interval(resample(statistic, seed=0))
    assert low < value_of(statistic) < high


def test_cka_of_constant_features_is_0() -> None:
    once = torch.ones(1, 20, dtype=torch.float64)
    assert float(LinearCKA.of(torch.full((20, 3), 0.1), noise(20, 4).float())(once)) == 0


def test_neighbour_agreement_is_that_of_a_loop() -> None:
    first, second = related(25)
    agreement = neighbour_agreement(first, second, 4).tolist()
    for image in range(25):
        sets = []
        for features in (first, second):
            cosines = F.cosine_similarity(features[image][None], features).tolist()
            sets.append(set(sorted((i for i in range(25) if i != image), key=lambda i: -cosines[i])[:4]))
        assert agreement[image] == len(sets[0] & sets[1]) / 4
    assert neighbour_agreement(first, 3 * first, 4).eq(1).all()
