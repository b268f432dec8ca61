import numpy as np
import pytest
import torch

from crosscontext.confidence import interval, resample
from crosscontext.contexts import hypercolumn, pool
from crosscontext.datasets.arrays import ArrayDataset
from crosscontext.errors import DataError, SettingsError
from crosscontext.health import LinearCKA, feature_std, neighbour_agreement, rankme
from crosscontext.tasks import HealthSettings
from examined import Unreadable, encoder, examined, pictures, pixels
from measured import right

OF_FEATURES = ["rankme", "feature_std", "uniformity", "alignment"]
OF_CONTEXTS = ["cka", "neighbour_agreement"]


def values(settings: HealthSettings, **changes: object) -> dict[str, float]:
    subject = examined(**{"test": pictures(40), **changes})  # type: ignore[arg-type]  # as the caller says
    return {m.metric: m.value for m in settings.judge(subject)}


def test_a_network_has_all_metrics_and_pixels_those_of_features() -> None:
    assert list(values(HealthSettings())) == OF_FEATURES + OF_CONTEXTS
    assert list(values(HealthSettings(), model=pixels())) == OF_FEATURES


def test_rank_and_spread_are_those_of_the_features() -> None:
    subject = examined(pictures(40))
    found = {m.metric: m.value for m in HealthSettings().judge(subject)}
    assert found["rankme"] == pytest.approx(rankme(subject.test.values))
    assert found["feature_std"] == pytest.approx(feature_std(subject.test.values))


def test_the_contexts_are_the_last_stage_and_the_stacked_stages() -> None:
    dataset, model = pictures(40), encoder()
    images = torch.stack([model.preprocess(dataset.image(i)) for i in range(40)])
    with torch.no_grad():
        maps = model.backbone(images)
    last, stacked = pool(maps[-1]), pool(hypercolumn([maps[1], maps[3]]))
    *_, cka, agreement = HealthSettings(stages=(1, -1), neighbours=5).judge(examined(dataset, model))
    expected = LinearCKA.of(last, stacked)(torch.ones(1, 40, dtype=torch.float64))
    assert cka.value == pytest.approx(float(expected), abs=1e-4)
    assert agreement.value == pytest.approx(float(neighbour_agreement(last, stacked, 5).mean()), abs=0.02)
    assert cka.details == {"stages": ["layer2", "layer4"]}


def test_the_last_stage_alone_agrees_with_itself() -> None:
    found = values(HealthSettings(stages=(-1,)))
    assert found["cka"] == pytest.approx(1, abs=1e-4)
    assert found["neighbour_agreement"] > 0.98  # but for rounding


def test_views_of_plain_pictures_are_aligned_and_smaller_crops_are_less_so() -> None:
    plain = ArrayDataset(
        np.random.default_rng(0).integers(0, 256, (20, 1, 1, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2),
        [f"{i}" for i in range(20)],
        None,
    )
    assert values(HealthSettings(), test=plain, model=pixels())["alignment"] == pytest.approx(0, abs=1e-6)
    large, small = (
        values(HealthSettings(smallest_crop=share), model=pixels())["alignment"] for share in (0.9, 0.05)
    )
    assert 0 < large < small


def test_neither_labels_nor_batches_nor_workers_change_anything() -> None:
    plain = values(HealthSettings())
    for changes in (
        {"batch_size": 7, "workers": 3},
        {"test": pictures(40, classes=[0, 1] * 20)},
        {"test": pictures(40, classes=[1] * 40)},
    ):
        other = values(HealthSettings(), **changes)
        assert other == pytest.approx(plain, rel=1e-3)


def test_the_same_seed_gives_the_same_numbers() -> None:
    settings = HealthSettings(images=20, neighbours=3)
    assert values(settings) == values(settings)
    assert values(settings) != values(settings, seed=1)


def test_the_intervals_hold_the_values() -> None:
    for measurement in HealthSettings().judge(examined(pictures(200))):
        low, high = interval(resample(measurement.statistic, seed=0))
        assert low <= measurement.value <= high, measurement.metric


def test_only_so_many_images_are_looked_at_and_only_readable_ones() -> None:
    measured = HealthSettings(images=15, neighbours=3).judge(examined(pictures(40)))
    assert {m.statistic.n for m in measured} == {15}
    measured = HealthSettings().judge(examined(Unreadable(pictures(40), [3, 4, 5])))
    assert {m.statistic.n for m in measured} == {37}


def test_the_agreement_has_a_value_for_each_image() -> None:
    *_, agreement = HealthSettings().judge(examined(pictures(40)))
    assert right(agreement).shape == (40,)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match=r"Only 9 test images can be read; health needs 10"):
        values(HealthSettings(), test=Unreadable(pictures(10), [2]))


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"20 neighbours are too many for 20 test images"):
        values(HealthSettings(), test=pictures(20))


def test_a_stage_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(SettingsError, match=r"stages of the task health is \(4,\).*-1: layer4"):
        values(HealthSettings(stages=(4,)))
