import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest
from torch import Tensor
from torchvision.transforms import ColorJitter

from crosscontext.photometry import (
    NUM_DRAWS,
    PhotometrySettings,
    Retouching,
    blur,
    retouch,
    retouching,
    solarize,
)

NUM_VIEWS = 4000
MOCO = PhotometrySettings(jitter_probability=0.8, grey_probability=0.2, blur_probability=0.5)
REFERENCES = (
    reference.adjust_brightness,
    reference.adjust_contrast,
    reference.adjust_saturation,
    reference.adjust_hue,
)


def noise(num_images: int = 6, side: int = 24) -> Tensor:
    """Random pixels, smooth parts, and the colours at which hue and grey are special."""
    images = torch.rand(num_images, 3, side, side, generator=torch.Generator().manual_seed(0))
    images[:, :, :4] = images[:, :, :4].round()  # black, white, primaries and their mixtures
    images[:, :, 4:6] = images[:, :1, 4:6]  # greys
    return images


def draws(num_views: int = NUM_VIEWS) -> np.ndarray:
    return np.random.default_rng(0).random((num_views, NUM_DRAWS))


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        (0, [0.0, 0.6, 0.97, 1.0, 1.4, 2.0]),
        (1, [0.0, 0.6, 0.97, 1.0, 1.4, 2.0]),
        (2, [0.0, 0.6, 0.97, 1.0, 1.4, 2.0]),
        (3, [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5]),
        (3, [-1 / 3, -0.2, -1 / 6, 1 / 6, 0.25, 0.4]),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "hue beyond a sixth"],
)
def test_each_adjustment_equals_torchvision_for_every_image_of_the_batch(
    operation: int, values: list[float]
) -> None:
    images = noise()
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (6, 1))
    factors[:, operation] = values
    yes, no = np.ones(6, bool), np.zeros(6, bool)
    order = np.random.default_rng(0).permuted(np.tile(np.arange(4), (6, 1)), axis=1)
    adjusted = retouch(images.clone(), Retouching(yes, factors, order, no, no, np.ones(6), no))
    for image, value, result in zip(images, values, adjusted, strict=True):
        torch.testing.assert_close(result, REFERENCES[operation](image, value), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [15, 16, 32, 96])
@pytest.mark.parametrize("sigma", [(0.1, 0.5, 1.0, 1.7, 2.0), (1.4, 1.5, 1.6, 1.7, 2.0)])
def test_blur_equals_torchvision_with_a_wide_kernel(side: int, sigma: tuple[float, ...]) -> None:
    images = noise(5, side)
    kernel = min(23, 2 * side - 1)
    for image, deviation, result in zip(images, sigma, blur(images, np.array(sigma)), strict=True):
        expected = reference.gaussian_blur(image, [kernel, kernel], [deviation, deviation])
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_solarize_equals_torchvision() -> None:
    assert torch.equal(solarize(noise()), reference.solarize(noise(), 0.5))


def test_the_whole_chain_equals_torchvision_with_the_same_factors_in_the_same_order() -> None:
    images = noise(64, 16)
    settings = MOCO.model_copy(update={"solarize_probability": 0.3})
    decisions = retouching(draws(64), settings)
    results = retouch(images.clone(), decisions)
    for row, (image, result) in enumerate(zip(images, results, strict=True)):
        torch.testing.assert_close(result, by_torchvision(image, decisions, row), atol=1e-5, rtol=0)
    assert results.min() >= -1e-6
    assert results.max() <= 1 + 1e-6


def by_torchvision(image: Tensor, decisions: Retouching, row: int) -> Tensor:
    if decisions.jittered[row]:
        for operation in decisions.order[row]:
            image = REFERENCES[operation](image, float(decisions.factors[row, operation]))
    if decisions.grey[row]:
        image = reference.rgb_to_grayscale(image, 3)
    if decisions.blurred[row]:
        image = reference.gaussian_blur(image, [23, 23], [float(decisions.sigma[row])] * 2)
    return reference.solarize(image, 0.5) if decisions.solarized[row] else image


def test_an_image_is_retouched_alone_as_in_a_batch() -> None:
    images, some = noise(32, 16), draws(32)
    together = retouch(images.clone(), retouching(some, MOCO))
    for row in range(32):
        alone = retouch(images[row : row + 1].clone(), retouching(some[row : row + 1], MOCO))
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=0)


def test_without_probabilities_nothing_changes() -> None:
    assert torch.equal(retouch(noise(), retouching(draws(6), PhotometrySettings())), noise())


def test_each_decision_is_as_frequent_as_its_probability() -> None:
    settings = MOCO.model_copy(update={"solarize_probability": 0.1})
    decisions = retouching(draws(), settings)
    for decided, probability in (
        (decisions.jittered, 0.8),
        (decisions.grey, 0.2),
        (decisions.blurred, 0.5),
        (decisions.solarized, 0.1),
    ):
        assert abs(decided.mean() - probability) < 4 * np.sqrt(probability * (1 - probability) / NUM_VIEWS)


def test_factors_are_distributed_as_those_of_torchvision() -> None:
    torch.manual_seed(0)
    jitter = ColorJitter(0.4, 0.4, 0.4, 0.1)
    ranges = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    published = np.array([ColorJitter.get_params(*ranges)[1:] for _ in range(NUM_VIEWS)], dtype=np.float64)
    factors = retouching(draws(), MOCO).factors
    for ours, theirs in zip(factors.T, published.T, strict=True):
        assert ks_2samp(ours, theirs).pvalue > 1e-3
    assert kstest(retouching(draws(), MOCO).sigma, "uniform", args=(0.1, 1.9)).pvalue > 1e-3


def test_all_orders_of_the_four_adjustments_are_equally_likely() -> None:
    orders, counts = np.unique(retouching(draws(), MOCO).order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert np.abs(counts / NUM_VIEWS - 1 / 24).max() < 5 * np.sqrt(1 / 24 / NUM_VIEWS)


def test_a_range_that_ends_below_its_start_is_refused() -> None:
    with pytest.raises(ValidationError, match="smaller number first"):
        PhotometrySettings(blur_sigma=(2.0, 0.1))
