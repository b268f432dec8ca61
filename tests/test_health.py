import math

import pytest
import torch

from crosscontext.health import feature_std, rankme


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
