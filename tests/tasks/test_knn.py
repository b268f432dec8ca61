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


def test_both_votes_may_be_asked_for_and_a_weighted_one_keeps_its_name() -> None:
    train, test = clusters(10, 0), clusters(4, 1)
    both = list(KnnSettings(k=(2, 9), vote=("majority", "weighted")).measure(train, test, seed=0))
    assert {m.metric for m in both} == {"top1_k2", "top1_k9", "top1_k2_majority", "top1_k9_majority"}
    (alone,) = KnnSettings(k=(9,)).measure(train, test, seed=0)
    (same,) = (m for m in both if m.metric == alone.metric)
    assert torch.equal(right(alone), right(same))


def test_the_default_has_the_k_of_the_paper_and_the_nearest_neighbour() -> None:
    assert KnnSettings().k == (1, 10, 20, 100, 200)
    assert KnnSettings().vote == ("weighted",)


def test_test_labels_change_no_prediction() -> None:
    train, test = clusters(10, 0), clusters(4, 1)
    assert test.classes is not None
    settings = KnnSettings(k=(5,), vote=("weighted", "majority"))
    honest = list(settings.measure(train, test, seed=0))
    right_if_all_are = [
        list(settings.measure(train, test._replace(classes=torch.full_like(test.classes, label)), seed=0))
        for label in range(3)
    ]
    for number, measurement in enumerate(honest):
        by_label = torch.stack([right(measured[number]) for measured in right_if_all_are])
        assert by_label.sum(dim=0).eq(1).all()  # one prediction, whatever the label says
        assert torch.equal(by_label.int().argmax(dim=0) == test.classes, right(measurement))
