import pytest
import torch

from crosscontext.errors import SettingsError
from crosscontext.features import Features
from crosscontext.tasks import KnnSettings
from measured import right


def clusters(per_class: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(3).repeat(per_class)
    values = torch.eye(3, 8)[classes] + 0.2 * torch.randn(3 * per_class, 8, generator=generator)
    return Features(values, classes, tuple(map(str, range(len(values)))), {})


def test_there_is_one_measurement_for_each_k() -> None:
    measured = list(KnnSettings(k=(5, 1)).measure(clusters(10, 0), clusters(4, 1), seed=0))
    assert {m.metric for m in measured} == {"top1_k5", "top1_k1"}
    assert all(right(m).shape == (12,) and m.value > 0.8 for m in measured)
    assert all(m.details == {} for m in measured)


def test_a_k_above_the_number_of_images_is_left_out_and_said_so() -> None:
    (measured,) = KnnSettings(k=(5, 31, 200)).measure(clusters(10, 0), clusters(4, 1), seed=0)
    assert measured.metric == "top1_k5"
    assert measured.details == {"k_above_number_of_images": [31, 200]}


def test_only_too_large_k_are_refused_with_the_numbers() -> None:
    with pytest.raises(SettingsError, match=r"needs 31 neighbours and there are 30 training images"):
        list(KnnSettings(k=(200, 31)).measure(clusters(10, 0), clusters(4, 1), seed=0))


def test_the_length_of_a_feature_does_not_matter() -> None:
    train, test = clusters(10, 0), clusters(4, 1)
    lengths = torch.linspace(0.1, 50, 30)[:, None]
    (plain,) = KnnSettings(k=(7,)).measure(train, test, seed=0)
    (scaled,) = KnnSettings(k=(7,)).measure(train._replace(values=lengths * train.values), test, seed=0)
    assert torch.equal(right(plain), right(scaled))
