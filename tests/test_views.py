from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as reference
from PIL import Image
from pydantic import ValidationError
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop

from crosscontext.datasets.contract import Dataset
from crosscontext.views import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    VIEW_NAMES,
    LocalViewSettings,
    ViewSettings,
    ViewsSettings,
    crop_boxes,
    cut,
    draw_view,
    finish_views,
    geometry_draws,
    photometry,
    photometry_draws,
    resolve,
)

IMAGES = np.arange(3000)


class Photos(Dataset):
    """Pictures of several sizes in memory."""

    labels = None

    def __init__(self, sizes: Sequence[tuple[int, int]]) -> None:
        self.names = [f"photo{index}" for index in range(len(sizes))]
        self._sizes = sizes

    def image(self, index: int) -> Image.Image:
        width, height = self._sizes[index]
        coarse = np.random.default_rng(index).integers(0, 256, (5, 5, 3), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


PHOTOS = Photos([(50, 40), (33, 70), (32, 32), (20, 200), (64, 48)])


@pytest.mark.parametrize(("width", "height"), [(32, 32), (500, 375), (90, 400)])
@pytest.mark.parametrize("settings", [ViewSettings(), LocalViewSettings(), ViewSettings(scale=(0.9, 1.0))])
def test_crops_are_distributed_as_those_of_torchvision(
    width: int, height: int, settings: ViewSettings
) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array(
        [RandomResizedCrop.get_params(image, settings.scale, settings.ratio) for _ in range(len(IMAGES))]
    )
    sizes = np.tile([width, height], (len(IMAGES), 1))
    ours = crop_boxes(geometry_draws(0, 0, IMAGES, "weak", 0), sizes, settings)[:, [1, 0, 3, 2]]
    for mine, other in zip(place_and_shape(ours), place_and_shape(theirs), strict=True):
        assert ks_2samp(mine, other).pvalue > 1e-3


def place_and_shape(boxes: np.ndarray) -> list[np.ndarray]:
    """Area, ratio, top and left of rows of (top, left, height, width)."""
    return [boxes[:, 2] * boxes[:, 3], boxes[:, 3] / boxes[:, 2], boxes[:, 0], boxes[:, 1]]


@pytest.mark.parametrize(("width", "height"), [(1000, 20), (20, 1000), (7, 3)])
def test_where_no_crop_fits_the_middle_is_taken_as_torchvision_does(width: int, height: int) -> None:
    settings = ViewSettings(scale=(1.0, 1.0))
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), settings.scale, settings.ratio)
    sizes = np.array([[width, height]] * 20)
    boxes = crop_boxes(geometry_draws(0, 0, IMAGES[:20], "weak", 0), sizes, settings)
    assert {(top, left, height, width) for left, top, width, height in boxes.tolist()} == {tuple(expected)}


def test_the_box_of_an_image_does_not_depend_on_the_others() -> None:
    draws = geometry_draws(0, 0, IMAGES[:50], "weak", 0)
    sizes = np.random.default_rng(0).integers(1, 600, (50, 2))
    together = crop_boxes(draws, sizes, ViewSettings())
    for row in range(50):
        alone = crop_boxes(draws[row : row + 1], sizes[row : row + 1], ViewSettings())
        assert np.array_equal(alone[0], together[row])
        assert (alone[0, :2] >= 0).all()
        assert (alone[0, :2] + alone[0, 2:] <= sizes[row]).all()


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_views_are_mirrored_as_often_as_asked(probability: float) -> None:
    settings = ViewSettings(flip_probability=probability)
    pictures, draws = [PHOTOS.pixels(2)] * 600, geometry_draws(0, 0, IMAGES[:600], "weak", 0)
    straight = cut(pictures, draws, ViewSettings(flip_probability=0.0), 16)
    mirrored = (cut(pictures, draws, settings, 16) != straight).any(axis=(1, 2, 3)).sum()
    assert abs(mirrored / 600 - probability) <= 4 * np.sqrt(probability * (1 - probability) / 600)


def test_all_decisions_about_a_view_are_drawn_independently() -> None:
    draws = np.concatenate(
        [geometry_draws(0, 0, IMAGES, "strong", 0), photometry_draws(0, 0, IMAGES, "strong", 0)], axis=1
    )
    correlations = np.corrcoef(draws.T) - np.eye(draws.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(len(IMAGES))


def test_every_view_of_an_image_has_draws_of_its_own() -> None:
    keys = [(name, copy) for name in VIEW_NAMES for copy in range(8)]
    rows = {tuple(geometry_draws(0, 0, IMAGES[:1], *key)[0].tolist()) for key in keys}
    assert len(rows) == len(keys)


def test_photometry_normalises_with_the_statistics_of_imagenet() -> None:
    crops = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    views = photometry(crops, photometry_draws(0, 0, np.arange(2), "weak", 0), ViewSettings())
    expected = reference.normalize(crops / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    torch.testing.assert_close(views, expected)


def test_photometry_is_the_same_for_both_memory_formats_and_leaves_the_crops_alone() -> None:
    settings = resolve(ViewsSettings(), 64).strong
    crops = torch.randint(0, 256, (16, 3, 64, 64), dtype=torch.uint8)
    untouched, draws = crops.clone(), photometry_draws(0, 0, np.arange(16), "strong", 0)
    planar = photometry(crops, draws, settings)
    assert torch.equal(
        photometry(crops.contiguous(memory_format=torch.channels_last), draws, settings), planar
    )
    assert torch.equal(crops, untouched)


@pytest.mark.parametrize("name", VIEW_NAMES)
@pytest.mark.parametrize("epoch", [-1, 3])
def test_a_view_drawn_again_alone_is_the_view_of_the_batch(name: str, epoch: int) -> None:
    settings, images = resolve(ViewsSettings(), 64), np.array([3, 0, 4, 1])
    side = 24 if name == "local" else 64
    copies = []
    for copy in range(2):
        draws = geometry_draws(5, epoch, images, name, copy)
        pictures = [PHOTOS.pixels(i) for i in images.tolist()]
        copies.append(torch.from_numpy(cut(pictures, draws, settings.named(name), side)))
    views = finish_views({name: copies}, images, settings, 5, epoch)[name]
    for copy, row in ((0, 1), (1, 2)):
        alone = draw_view(PHOTOS, int(images[row]), settings, 64, (name, copy), (5, epoch))
        torch.testing.assert_close(alone, views[copy][row], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("image_size", "local_size", "strong_blur", "local_blur"),
    [(224, 96, 0.5, 0.5), (96, 40, 0.5, 0.0), (64, 24, 0.5, 0.0), (32, 16, 0.0, 0.0), (8, 8, 0.0, 0.0)],
)
def test_auto_becomes_what_the_size_of_the_views_asks_for(
    image_size: int, local_size: int, strong_blur: float, local_blur: float
) -> None:
    resolved = resolve(ViewsSettings(), image_size)
    assert resolved.local.image_size == local_size
    assert (resolved.weak.blur_probability, resolved.strong.blur_probability) == (0.0, strong_blur)
    assert resolved.local.blur_probability == local_blur
    assert resolve(resolved, image_size) == resolved


def test_what_was_said_is_not_resolved_away() -> None:
    said = ViewsSettings.model_validate(
        {"strong": {"blur_probability": 0.9, "hue": 0.2}, "local": {"image_size": 20}}
    )
    resolved = resolve(said, 32)
    assert (resolved.strong.blur_probability, resolved.strong.hue, resolved.local.image_size) == (
        0.9,
        0.2,
        20,
    )
    assert resolved.strong.jitter_probability == 0.8


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.8, 0.2)},
        {"ratio": (2.0, 1.0)},
        {"flip_probability": 1.5},
        {"flop": 1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ViewSettings.model_validate(wrong)
