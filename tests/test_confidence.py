import numpy as np
import pytest
import torch

from crosscontext.confidence import RESAMPLES, Mean, interval, resample, value_of


def test_the_value_counts_each_image_once() -> None:
    assert value_of(Mean(torch.tensor([True, False, False, True]))) == 0.5
    assert value_of(Mean(torch.tensor([0.25, -0.75]))) == -0.25


def test_the_bootstrap_agrees_with_plain_resampling() -> None:
    right = torch.arange(400) % 5 == 0
    low, high = interval(resample(Mean(right), seed=0))
    generator = np.random.default_rng(1)
    means = [right.numpy()[generator.integers(0, 400, 400)].mean() for _ in range(4000)]
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist(), abs=0.008)


def test_the_interval_covers_the_truth_about_19_times_in_20() -> None:
    generator = torch.Generator().manual_seed(0)
    intervals = [
        interval(resample(Mean(torch.rand(500, generator=generator) < 0.7), seed)) for seed in range(300)
    ]
    covered = sum(low <= 0.7 <= high for low, high in intervals)
    assert 0.91 * 300 <= covered <= 0.98 * 300


def test_statistics_of_the_same_images_see_the_same_resamples() -> None:
    right = torch.arange(100) % 3 == 0
    replicates = resample(Mean(right), seed=5)
    assert len(replicates) == RESAMPLES
    assert np.allclose(replicates + resample(Mean(~right), seed=5), 1)
    assert not np.array_equal(replicates, resample(Mean(right), seed=6))


def test_many_images_are_resampled_in_parts_all_the_same() -> None:
    replicates = resample(Mean(torch.arange(10_000) % 2 == 0), seed=0)
    assert replicates.shape == (RESAMPLES,)
    assert replicates.std() == pytest.approx(0.005, rel=0.1)  # sqrt(0.25 / n)


def test_without_errors_the_interval_is_a_point() -> None:
    assert interval(resample(Mean(torch.ones(10, dtype=torch.bool)), seed=0)) == (1, 1)
