"""Crops are those of torchvision on Pillow images, however many are cut at once."""

import numpy as np
import pytest
import torchvision.transforms.v2.functional as reference
from PIL import Image

from crosscontext.resampling import SMALL, crop


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def boxes_in(width: int, height: int, number: int) -> np.ndarray:
    """Random boxes, and among them the whole picture and a single pixel in its last corner."""
    generator = np.random.default_rng(1)
    sizes = generator.integers(1, (width + 1, height + 1), (number, 2))
    corners = generator.integers(0, np.array([width, height]) - sizes + 1)
    corners[0], sizes[0] = 0, (width, height)
    corners[1], sizes[1] = (width - 1, height - 1), 1
    return np.concatenate([corners, sizes], axis=1)


def by_torchvision(pixels: np.ndarray, box: np.ndarray, flip: bool, size: int) -> np.ndarray:
    left, top, width, height = box.tolist()
    cropped = reference.resized_crop(Image.fromarray(pixels), top, left, height, width, [size, size])
    return np.asarray(reference.horizontal_flip(cropped) if flip else cropped).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("width", "height", "size", "unequal"),
    [
        (32, 32, 32, 0),
        (28, 28, 16, 0.1),
        (40, 7, 24, 0.1),
        (1, 1, 8, 0),
        (41, 33, 32, 0.1),
        (500, 375, 224, 0.1),
    ],
)
def test_a_crop_has_the_pixels_of_torchvision(width: int, height: int, size: int, unequal: float) -> None:
    pixels, boxes = picture(width, height), boxes_in(width, height, 40)
    flips = np.arange(40) % 2 == 1
    crops = crop([pixels] * 40, boxes, flips, size).astype(int)
    expected = np.stack(
        [by_torchvision(pixels, box, flip, size) for box, flip in zip(boxes, flips, strict=True)]
    )
    assert np.abs(crops - expected).max() <= 1
    assert (crops != expected).mean() <= unequal  # rounded otherwise


def test_pictures_of_mixed_sizes_are_cut_together_as_alone() -> None:
    pictures = [picture(*size, seed) for seed, size in enumerate([(32, 32), (90, 50), (20, 32), (32, 32)])]
    boxes = np.array([[1, 2, 30, 29], [10, 0, 64, 50], [0, 0, 20, 32], [7, 7, 3, 20]])
    flips = np.array([True, False, True, False])
    together = crop(pictures, boxes, flips, 24)
    for row in range(4):
        assert np.array_equal(
            crop(pictures[row : row + 1], boxes[row : row + 1], flips[row : row + 1], 24)[0], together[row]
        )


@pytest.mark.parametrize("side", [SMALL, SMALL + 1])
@pytest.mark.parametrize("level", [0, 1, 127, 128, 255])
def test_a_plain_picture_stays_plain(side: int, level: int) -> None:
    plain = np.full((side, side, 3), level, dtype=np.uint8)
    for size in (8, 17, 40, 60):
        assert (crop([plain] * 30, boxes_in(side, side, 30), np.zeros(30, bool), size) == level).all()
